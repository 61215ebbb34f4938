// The verdict, the timeline, messages, findings, predictions and backups.

const TONE = { "switchable": "ok", "switching": "warn", "switched": "warn", "failover-disabled": "warn", "not-switchable": "warn", "split-brain": "bad", "unknown": "" };

/** What the state means for the service: a sentence and its tone. */
function verdict(status) {
  const word = status.mirroring_status;
  const [first, second] = names(status);
  const primary = status.view ? status.view.primary : null;
  const other = primary === first ? second : first;
  if (word === "split-brain" || bothPrimary(status)) return ["bad", "Both servers have accepted commits alone, and their data has diverged. Stop the applications before anything else."];
  if (!status.servers.some(isPrimary) && status.view) return ["bad", word === "switching" ? "The role of the primary changes. No server accepts commits at this moment." : "No server accepts commits."];
  if (status.commits_waiting_seconds) return ["bad", `Commits have waited for ${other} for ${duration(status.commits_waiting_seconds)}.`];
  if (word === "switchable") return ["ok", `${primary} is the primary, and ${other} has every acknowledged commit. If ${primary} fails, ${other} takes over.`];
  if (word === "failover-disabled" && !alone(status)) return ["warn", `${primary} is the primary, and ${other} has every acknowledged commit. Failures are only reported: automatic switch and disconnection are off.`];
  if (word === "switching") return ["warn", "A change of the pair is in progress."];
  if (alone(status)) return ["warn", `${primary} serves alone. A failure of ${primary} would end the service.`];
  if (word === "not-switchable") return ["warn", `${primary} is the primary, but ${other} cannot take over now.`];
  return ["", "The state of the pair is not known yet."];
}

function renderVerdict() {
  const { status, problem } = state;
  const stale = state.lostSince !== null;
  if (problem) {
    $("verdict").className = "card bad";
    chip("not running", "bad");
    show($("verdict-text"), ["problem", problem.error, stale], () => [
      h("h2", { class: "word" }, stale ? "last known: no answer" : "no answer from the controller"),
      h("p", { class: "sentence" }, rich(problem.error)),
    ]);
    show($("advice"), ["problem", problem.hint], () => (problem.hint ? h("div", { class: "note next" }, h("b", null, "Next:"), rich(problem.hint)) : []));
    return;
  }
  if (!status) return;
  const [tone, sentence] = verdict(status);
  const word = status.mirroring_status;
  chip(stale ? `last known: ${word}` : word, stale ? "" : tone);
  document.title = `${stale ? "connection lost · " : ""}${names(status).join(" + ")}: ${word}`;
  $("title").textContent = names(status).join(" + ");
  $("verdict").className = `card ${tone}`;
  const view = status.view;
  const since = view && view.seconds !== null ? status.received - 1000 * view.seconds : null;
  // The time is read from the age of the view, which is rounded to seconds.
  const at = since === null ? null : Math.abs(since - (renderVerdict.since || 0)) < 2500 ? renderVerdict.since : since;
  renderVerdict.since = at;
  show($("verdict-text"), [word, sentence, at, view && view.reason, view && view.term, stale], () => [
    h("h2", { class: "word" }, stale ? `last known: ${word}` : word),
    h("p", { class: "sentence" }, sentence),
    view && h("p", { class: "dim" }, at === null ? null : ["since ", when(at, true), " · "], view.reason, ` · term ${view.term}`),
  ]);
  renderAdvice(status);
}

function chip(text, tone) {
  $("word").textContent = text;
  $("word").className = `chip ${tone}`;
}

/** What is suggested: the action that repairs the pair, if this console can run it, and the controller's advice. */
function suggested(status) {
  const possible = (name, server) => state.actions.find((action) => action.name === name && action.server === server && !action.refused);
  if (status.mirroring_status === "split-brain" || bothPrimary(status)) return null;
  const me = status.servers.find((server) => server.server_id === status.local_server);
  const peer = status.servers.find((server) => server.server_id !== status.local_server);
  if (/^none\(inactivated/.test(me.host_role) && !status.rebuild) return possible("rebuild", "own");
  if (peer.host_status !== "normal") return possible("start", "other");
  if (status.mirroring_status === "failover-disabled") return possible("enable-failover", "own");
  return null;
}

function renderAdvice(status) {
  const notes = [];
  const add = (tone, text) => text && notes.push([tone, text]);
  add("bad", status.configuration_error && `Configuration: ${status.configuration_error}`);
  add("bad", status.ledger_error && `The ledger cannot be written: ${status.ledger_error}`);
  if (status.disconnection) add("warn", status.disconnection.text.replace(/ \d.* ago/, ""));
  status.connection_failures.forEach((connection) => add("warn", connection.error));
  status.durability_warnings.forEach((text) => add("warn", text));
  if (status.rebuild && status.rebuild.failed) add("bad", `The rebuild has failed: ${status.rebuild.failed}`);
  if (status.progress === "refused") add("bad", status.progress_detail);
  else if (status.progress === "waiting") add("", `The start waits: ${status.progress_detail}`);
  const action = operator() ? suggested(status) : null;
  const split = status.mirroring_status === "split-brain" || bothPrimary(status);
  const possiblySplit = !split && alone(status) && status.servers.some((server) => server.host_status !== "normal");
  show($("advice"), [notes, status.advice, action, split && status.servers, possiblySplit], () => [
    split && splitBrain(status),
    notes.map(([tone, text]) => h("div", { class: `note ${tone}` }, tone ? h("b", null, "!") : null, rich(text))),
    status.advice.map((text) => h("div", { class: "note next" }, h("b", null, "Next:"), rich(text))),
    possiblySplit && h("div", { class: "note" }, "The other server does not respond. If its console, or ", h("code", { class: "cmd" }, "mc_ctl status"), " there, shows it as the primary too, both servers accept commits: stop the applications."),
    action && h("div", { class: "note next" }, "This console can run it: ", h("code", { class: "cmd" }, action.command), actionButton(action, "suggested", "primary")),
  ]);
}

/** Chapter 6.8 of the guide, with the procedure of 3.8.4. */
function splitBrain(status) {
  const kind = (server) => (isPrimary(server) ? "standalone (primary)" : /^none\(inactivated/.test(server.host_role) ? "stopped by its controller" : "unknown");
  return h("div", { class: "note bad", id: "split-brain", role: "alert" },
    h("h3", null, "Split brain: both servers have run alone"),
    h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, "Server"), h("th", { scope: "col" }, "Instance"), h("th", { scope: "col" }, "Timeline"), h("th", { scope: "col" }, "Position"))),
      h("tbody", null, status.servers.map((server) => h("tr", null, h("th", { scope: "row" }, server.server_id), h("td", null, kind(server)), h("td", null, String(server.timeline || "unknown")), h("td", null, h("code", null, server.lsn || "unknown")))))),
    h("ol", { class: "steps" },
      h("li", null, "Stop all applications that use either server."),
      h("li", null, "Decide which data to keep. The timeline shows when the servers diverged, and the message MCA00062 (promotion processing completed) which server was promoted last."),
      h("li", null, "On the stopped server, run ", h("code", { class: "cmd" }, "mc_ctl rebuild --dry-run"), ", which shows the tables with commits that only this server has."),
      h("li", null, "To keep the data of the running server, run ", h("code", { class: "cmd" }, "mc_ctl rebuild --method basebackup"), " on the stopped server. It keeps the old data directory. Transfer the rows that you need from it."),
      h("li", null, "To keep the data of the stopped server, follow “Both servers have run alone” in mirroring-controller(7)."),
      h("li", null, "Start the applications again when the status is switchable.")),
    h("button", { type: "button", class: "small", "data-key": "explain-split", click: () => explain("MCA01024") }, "Explain MCA01024"));
}

function renderProgress() {
  const { status } = state;
  const bars = [];
  if (status && !state.problem && status.rebuild && !status.rebuild.failed) {
    const { step, bytes_done: done, bytes_total: total, elapsed_ms: elapsed, method } = status.rebuild;
    const rate = elapsed > 1000 && done ? `, ${bytes((1000 * done) / elapsed)}/s` : "";
    bars.push({ key: "rebuild", text: `Rebuild of ${status.local_server}${method ? ` (${method})` : ""}: ${step}${total ? `: ${bytes(done)} of ${bytes(total)}${rate}` : ""}`, value: total ? done / total : null });
  }
  if (status && !state.problem && status.checkpoint) bars.push({ key: "checkpoint", text: `Checkpoint ${status.checkpoint.number} of ${status.checkpoint.count}: ${bytes(status.checkpoint.bytes_written)} written`, value: null });
  for (const job of state.jobs.values()) {
    if (job.ended) continue;
    const line = job.line || (job.lines && job.lines[job.lines.length - 1]) || "running";
    const percent = /\((\d+) ?%\)/.exec(line);
    bars.push({ key: `job-${job.id}`, job, text: `${job.command}: ${line}`, value: percent ? percent[1] / 100 : null });
  }
  show($("progress"), bars.map((bar) => [bar.key, bar.text, bar.value]), () =>
    bars.map((bar) => h("div", { class: "note" }, h("span", { id: `text-${bar.key}` }, bar.text), h("progress", { "aria-labelledby": `text-${bar.key}`, value: bar.value === null ? false : String(bar.value) }),
      bar.job && operator() && h("button", { type: "button", class: "small", "data-key": bar.key, click: () => followJob(bar.job) }, "Show output"))));
}

function timelineRow(row) {
  const forced = row.to && row.to.forced ? " (forced)" : "";
  if (row.action) {
    const { user, command, server, ended, exit } = row.action;
    const end = !ended ? "running" : exit === 0 ? "done" : `failed, exit status ${exit}`;
    return [!ended || exit === 0 ? "info" : "bad", [`${user} ran `, h("code", { class: "cmd" }, command), server ? ` on ${server}` : "", `: ${end}.`], null, row.action.job];
  }
  if (row.lost) {
    const { transactions, relations, kept } = row.lost;
    return ["warn", `Before a rebuild, WAL that only this server had was saved: ${transactions} committed transactions.`, [relations && relations.length ? `Tables: ${relations.join(", ")}. ` : "", "Saved in ", h("code", null, kept)]];
  }
  if (!row.to) return ["info", row.reason, null];
  const [from, to] = [row.from, row.to];
  const detail = [row.reason, from ? `. Term ${from.term} → ${to.term}${forced}.` : `. Term ${to.term}${forced}.`];
  if (to.mode === "mirrored") return ["ok", `The pair is mirrored; ${to.primary} is the primary.`, detail];
  if (from && from.primary !== to.primary) return ["warn", `${to.primary} was promoted and serves alone.`, detail];
  return [from ? "warn" : "ok", from ? `${to.primary} continues alone.` : `${to.primary} is the first primary.`, detail];
}

let timelineAll = false;
function renderTimeline() {
  const rows = [...state.history].reverse();
  const some = timelineAll ? rows : rows.slice(0, 8);
  show($("timeline-list"), [some, rows.length], () => [
    rows.length ? null : h("p", { class: "dim" }, "There is no history yet."),
    h("ol", { class: "time" }, some.map((row) => {
      const [tone, text, detail, job] = timelineRow(row);
      return h("li", null, when(row.time), h("span", { class: `dot ${tone}`, "aria-hidden": "true" }),
        h("p", null, text, detail && h("small", null, detail), job !== undefined && job !== null && operator() ? [" ", h("button", { type: "button", class: "link", "data-key": `out-${job}`, click: () => followJob({ id: job }) }, "output")] : null));
    })),
    rows.length > 8 && h("button", { type: "button", class: "small", "data-key": "timeline-all", "aria-expanded": String(timelineAll), click: () => { timelineAll = !timelineAll; renderTimeline(); } }, timelineAll ? "Show fewer" : `Show all ${rows.length}`),
  ]);
}

const TYPES = { ERROR: "bad", FATAL: "bad", PANIC: "bad", WARNING: "warn", NOTICE: "info" };

const message = (number) => `MCA${String(number).padStart(5, "0")}`;

function renderMessages() {
  const rows = state.messages.filter((row) => !$("important").checked || TYPES[row.type] === "bad" || row.type === "WARNING").slice(0, 200);
  show($("messages-list"), rows, () => rows.length ? h("div", { class: "rows" }, rows.map((row, n) =>
    h("div", { class: "row" }, when(row.time), h("span", { class: `chip ${TYPES[row.type] || ""}` }, row.type),
      h("p", null, row.text, " ", row.number ? h("button", { type: "button", class: "link", "data-key": `explain-${rows.length - n}`, "aria-label": `Explain ${message(row.number)}`, click: () => explain(message(row.number)) }, message(row.number)) : null)))) : h("p", { class: "dim" }, "No messages."));
}

const SEVERITY = { error: ["bad", 0], critical: ["bad", 0], warning: ["warn", 1], notice: ["info", 2] };

/** The findings, the worst first; those that differ only in the member are one. */
function merged(findings) {
  const rows = new Map();
  for (const row of findings) {
    const key = JSON.stringify([row.code, row.what, row.fix, row.severity]);
    if (!rows.has(key)) rows.set(key, { ...row, members: [] });
    if (row.member) rows.get(key).members.push(row.member);
  }
  const rank = (row) => (SEVERITY[row.severity] || ["", 3])[1];
  return [...rows.values()].sort((a, b) => rank(a) - rank(b));
}

let noticesShown = false;
function renderFindings() {
  const check = state.check;
  show($("findings-list"), [check && (check.error ? check.error.message : check.findings), check === null, noticesShown], () => {
    if (!check) return h("p", { class: "dim" }, "The check runs …");
    if (check.error) return failure(check.error);
    const rows = merged(check.findings);
    const notices = rows.filter((row) => row.severity === "notice");
    const grave = rows.filter((row) => row.severity !== "notice");
    const toggle = () => {
      noticesShown = !noticesShown;
      renderFindings();
    };
    return [
      grave.length ? null : h("p", null, h("span", { class: "chip ok" }, "✓ ok"), " No error and no warning."),
      h("div", { class: "rows" }, (noticesShown ? rows : grave).map((row, n) =>
        h("div", { class: "row" }, h("span", { class: `chip ${(SEVERITY[row.severity] || [""])[0]}` }, row.severity),
          h("div", null, h("p", null, row.members.length ? [h("strong", null, row.members.join(", ")), ": "] : null, rich(row.what), " ", h("button", { type: "button", class: "link", "data-key": `finding-${n}`, "aria-label": `Explain ${row.code}`, click: () => explain(row.code) }, row.code)),
            row.file ? h("small", null, row.file, row.line ? `, line ${row.line}` : "", h("br")) : null, row.fix ? h("small", null, "Fix: ", rich(row.fix)) : null)))),
      notices.length ? h("button", { type: "button", class: "small", "data-key": "notices", "aria-expanded": String(noticesShown), click: toggle }, noticesShown ? "Hide notices" : `Show ${notices.length} notice${notices.length > 1 ? "s" : ""}`) : null,
    ];
  });
}

const FAULTS = {
  "primary-host": "the host of the primary loses power", "primary-instance": "the postmaster of the primary ends", "primary-instance-hang": "the instance of the primary hangs",
  "primary-disk": "the data disk of the primary fails", "primary-controller": "the controller of the primary ends", "primary-isolated": "the primary is cut off from all other members",
  "standby-host": "the host of the standby loses power", "standby-instance": "the postmaster of the standby ends", "standby-instance-hang": "the instance of the standby hangs",
  "standby-disk": "the data disk of the standby fails", "standby-controller": "the controller of the standby ends", "standby-isolated": "the standby is cut off from all other members",
  "link": "the network between the servers fails", "replication": "replication between the instances fails", "arbiter": "the arbiter process ends", "arbiter-host": "the host of the arbiter loses power", "back": "all failures are repaired",
};
const VERDICT = { "impossible": "", "unharmed": "ok", "continues": "ok", "takes-over": "warn", "commits-wait": "bad", "no-service": "bad", "cut-off": "bad", "both-continue": "bad" };

/** The prediction for one of these faults, in a dialog. */
async function whatIf(name, faults, chosen) {
  const answer = h("div", { "aria-live": "polite" });
  const ask = async (fault) => {
    answer.replaceChildren(h("p", { class: "dim" }, "Predicting …"));
    try {
      answer.replaceChildren(...prediction(await api(`/api/what-if?fault=${encodeURIComponent(fault)}`)));
    } catch (error) {
      answer.replaceChildren(failure(error));
    }
  };
  const select = h("select", { change: (event) => ask(event.target.value) }, faults.map((fault) => h("option", { value: fault, selected: fault === chosen }, FAULTS[fault] || fault)));
  openDialog("What if …", [h("p", { class: "dim" }, name), h("label", null, "Fault", select), answer], [h("button", { type: "button", click: closeDialog }, "Close")]);
  ask(chosen);
}

function prediction(story) {
  return [
    h("h3", null, h("span", { class: `chip ${VERDICT[story.verdict] || ""}` }, story.verdict.replace(/-/g, " ")), " ", story.summary),
    story.why ? h("p", { class: "dim" }, story.why) : "",
    story.without_consent ? h("div", { class: "note warn" }, "This happens without the consent of another member.") : "",
    story.steps.length ? h("ol", { class: "time" }, story.steps.map((step) => h("li", null, h("span", { class: "mono dim" }, `${step.seconds.toFixed(2)} s`), h("span", { class: "dot info", "aria-hidden": "true" }), h("p", null, step.member ? [h("strong", null, step.member), ": "] : null, step.text, step.message ? [" ", h("small", null, step.message)] : null)))) : "",
    story.then.length ? [h("h3", null, "Then"), h("ul", null, story.then.map((text) => h("li", null, rich(text))))] : "",
    story.remarks.length ? h("ul", { class: "dim" }, story.remarks.map((text) => h("li", null, rich(text)))) : "",
  ].flat().filter(Boolean);
}

/** Every fault with its outcome; asked only on request, and again after a change. */
function renderWhatIf() {
  const faults = state.faults;
  const current = () => state.status && [state.status.mirroring_status, state.status.view && state.status.view.term];
  const old = faults && faults.rows && JSON.stringify(faults.of) !== JSON.stringify(current());
  show($("what-if-list"), [faults && (faults.error ? faults.error.message : faults.rows), old], () => {
    const button = h("button", { type: "button", class: "small", "data-key": "what-if-all", click: () => load("/api/what-if?fault=all", (rows, error) => (state.faults = error ? { error } : { rows, of: current() })) }, faults ? "Predict again" : "Predict every fault");
    if (!faults) return [h("p", { class: "dim" }, "The outcome of each fault in the present state, without a test."), button];
    if (faults.error) return [failure(faults.error), button];
    const rows = faults.rows.filter((story) => story.verdict !== "impossible");
    return [old && h("p", { class: "note warn" }, "The state has changed since."),
      h("div", { class: "faults" }, rows.map((story) => h("button", { type: "button", class: "fault", "data-key": `fault-${story.faults[0]}`, click: () => whatIf(FAULTS[story.faults[0]] || story.faults[0], story.faults, story.faults[0]) },
        h("span", { class: `chip ${VERDICT[story.verdict] || ""}` }, story.verdict.replace(/-/g, " ")), ` … ${FAULTS[story.faults[0]] || story.faults[0]}?`, h("small", null, story.summary)))), h("p"), button];
  });
}

function renderBackups() {
  const list = state.backups;
  const known = state.status && state.status.backups;
  show($("backups-list"), [list, known && known.problems, known && known.free_bytes && bytes(known.free_bytes)], () => {
    if (!list) return h("p", { class: "dim" }, "Not known yet.");
    if (list.error) return [h("p", null, rich(list.error)), list.hint ? h("small", null, rich(list.hint)) : null];
    return [
      known && known.problems.map((text) => h("div", { class: "note warn" }, rich(text))),
      list.length ? null : h("p", null, "There is no backup."),
      h("ul", { class: "plain" }, list.map((row) => h("li", { class: `note ${row.wal_missing ? "warn" : ""}` }, h("strong", null, row.name), ` on ${row.on}`, h("br"),
        h("small", null, "recovers ", when(row.recoverable_from), " to ", when(row.recoverable_until), row.wal_missing ? ` · WAL segment ${row.wal_missing} is missing` : "", row.abandoned_for ? ` · abandoned for timeline ${row.abandoned_for}` : "")))),
      known && h("small", null, `${known.destination}: ${bytes(known.free_bytes)} free`, known.needed_bytes ? `, the next backup needs about ${bytes(known.needed_bytes)}` : ""),
    ];
  });
}

/** Cause, action of the system, and remedy of a message or finding. */
async function explain(what) {
  const body = h("div", { "aria-live": "polite" }, h("p", { class: "dim" }, "Reading …"));
  openDialog(what, [body], [h("button", { type: "button", click: closeDialog }, "Close")]);
  try {
    const told = await api(`/api/explain/${encodeURIComponent(what)}`);
    const rows = [["Message", told.text], ["Cause", told.cause], ["System action", told.action], ["What to do", told.remedy]].filter(([, text]) => text);
    body.replaceChildren(h("p", null, h("span", { class: `chip ${TYPES[told.type] || ""}` }, told.type || "finding")), h("dl", null, rows.map(([name, text]) => [h("dt", null, name), h("dd", null, rich(text))])),
      told.command ? h("p", { class: "note next" }, h("b", null, "Command:"), h("code", { class: "cmd" }, told.command), told.on ? ` on ${told.on}` : "") : "");
  } catch (error) {
    body.replaceChildren(failure(error));
  }
}
