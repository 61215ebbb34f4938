// The actions: each shows its plan and its risk, asks, and follows its job.

const TITLES = {
  "start": "Start", "stop": "Stop", "enable-failover": "Enable failover", "disable-failover": "Disable failover", "switch": "Switch", "detach": "Detach the standby", "rebuild": "Rebuild",
  "backup": "Back up now", "recover": "Plan a recovery", "setup": "Set up", "delete": "Delete the set-up",
};
const COST = {
  "start": "starts the controller and the instance", "enable-failover": "failures are acted on automatically", "disable-failover": "failures are only reported", "switch": "clients reconnect; the roles change",
  "detach": "the primary continues alone", "rebuild": "replaces its data by that of the primary", "backup": "copies the primary; no interruption", "recover": "shows the plan only; nothing changes", "setup": "writes the files of the management directory",
  "delete": "removes its files; the data stays",
};
const DANGEROUS = ["stop", "detach", "delete"];
const GROUPS = [["The pair", ["switch", "detach", "enable-failover", "disable-failover", "backup", "recover"]], ["own", ["rebuild", "start", "stop"]], ["other", ["start", "stop"]], ["Set-up", ["setup", "delete"]]];

const choice = (name, text, options) => ({ name, text, options });
const check = (name, text, detail) => ({ name, text, check: true, detail });
const FIELDS = {
  "start": [choice("failover", "Automatic switch and disconnection", [[null, "as set for the pair"], [true, "enabled"], [false, "disabled"]]), check("mc_only", "Start only the controller, not the instance")],
  "stop": [check("mc_only", "Stop only the controller; the instance continues to run"), { ...check("all", "Stop both servers; nothing is switched"), own: true }],
  "switch": [check("force", "Without the consent of the other server", "The other server does not respond and is confirmed to be down."), { ...check("no_fencing", "Do not run fencing_command"), needs: "force" }],
  "detach": [check("force", "Without the consent of the other server", "The other server does not respond and is confirmed to be down."), { ...check("no_fencing", "Do not run fencing_command"), needs: "force" }],
  "rebuild": [choice("method", "Method", [["auto", "the fastest that works"], ["rewind", "no full copy (pg_rewind)"], ["basebackup", "a full copy (pg_basebackup)"]]), choice("old_data", "Data directory that a full copy replaces", [["keep", "keep it"], ["delete", "delete it"]])],
  "backup": [check("fast_checkpoint", "Make the checkpoint at once"), check("incremental", "Only what has changed since the newest full backup (PostgreSQL 17 and later)")],
  "recover": [choice("target", "Recover up to", [["latest", "the end of WAL"], ["time", "a time"], ["name", "a restore point"], ["lsn", "a position in WAL"], ["xid", "a transaction"], ["immediate", "the end of the backup"]]),
    { name: "value", text: "Time, name, position or transaction", hint: "2026-11-30 14:05:00+00", when: (p) => ["time", "name", "lsn", "xid"].includes(p.target) }, { name: "backup", text: "Backup", hint: "the newest that precedes the target" }],
};

function serverName(which) {
  const session = state.session || {};
  return (which === "own" ? session.server : session.other) || (which === "own" ? "this server" : "the other server");
}

function titleOf(action) {
  const title = TITLES[action.name] || action.name;
  if (["start", "stop"].includes(action.name)) return `${title} ${serverName(action.server)}`;
  return action.name === "rebuild" ? `${title} ${serverName("own")}` : title;
}

/** What the action costs, in a few words. */
function cost(action) {
  let text = COST[action.name];
  if (action.name === "stop" && state.status) {
    const server = state.status.servers.find((row) => row.server_id === serverName(action.server));
    text = server && isPrimary(server) ? (alone(state.status) || !state.status.failover_enabled ? "ends the service" : "the other server takes over") : "the primary continues alone";
  }
  return text ? [text, h("br")] : null;
}

function actionButton(action, key, style) {
  const dots = action.confirm || FIELDS[action.name] || action.name === "setup" ? " …" : "";
  const refused = action.refused;
  return h("button", { type: "button", class: `act ${style || ""}`, "data-key": `${key}-${action.name}-${action.server}`, "data-action": `${action.name}-${action.server}`, "aria-disabled": refused ? "true" : null, click: () => !refused && askAction(action) },
    titleOf(action), refused ? "" : dots, h("small", null, refused ? ["not possible: ", rich(refused)] : [cost(action), h("span", { class: "mono" }, action.command)]));
}

function renderActions() {
  if (!operator()) return;
  const known = new Set();
  show($("action-list"), [state.actions, state.session, state.status && [state.status.servers.map(isPrimary), alone(state.status), state.status.failover_enabled]], () => [
    state.actions.length ? null : h("p", { class: "dim" }, "Reading …"),
    h("div", { class: "actions" }, GROUPS.map(([group, order]) => {
      const rows = order.map((name) => state.actions.find((action) => action.name === name && action.server === (group === "other" ? "other" : "own"))).filter(Boolean);
      rows.forEach((row) => known.add(row));
      if (!rows.length) return null;
      const title = group === "own" ? `${serverName("own")} (this server)` : group === "other" ? `${serverName("other")} (the other server)` : group;
      return [h("h3", null, title), rows.map((row) => actionButton(row, "act"))];
    }), state.actions.filter((action) => !known.has(action)).map((action) => actionButton(action, "act"))),
  ]);
}

/** One field of a form: its element, and how to read it. */
function field(spec, changed) {
  if (spec.options) {
    const select = h("select", { name: spec.name, change: changed }, spec.options.map(([value, text], n) => h("option", { value: n }, text)));
    return [h("label", null, spec.text, select), () => spec.options[select.selectedIndex][0], null];
  }
  if (spec.check) {
    const box = h("input", { type: "checkbox", name: spec.name, change: changed });
    return [h("label", { class: "inline" }, box, h("span", null, spec.text, spec.detail ? h("small", null, h("br"), spec.detail) : null)), () => box.checked || null, null];
  }
  const input = h(spec.area ? "textarea" : "input", { name: spec.name, type: spec.area ? null : spec.secret ? "password" : "text", placeholder: spec.hint, autocomplete: spec.secret ? "new-password" : "off", spellcheck: "false", input: changed });
  return [h("label", null, spec.text, input), () => input.value.trim() || null, input];
}

/** Fields, and the parameters that they make. */
function form(specs, changed) {
  const fields = specs.map((spec) => [spec, ...field(spec, () => update() && changed())]);
  const read = () => {
    const parameters = {};
    for (const [spec, , value] of fields) if (value() !== null) parameters[spec.name] = value();
    for (const [spec] of fields) if ((spec.needs && !parameters[spec.needs]) || (spec.when && !spec.when(parameters))) delete parameters[spec.name];
    return parameters;
  };
  const update = () => {
    const parameters = read();
    for (const [spec, element] of fields) element.hidden = Boolean((spec.needs && !parameters[spec.needs]) || (spec.when && !spec.when(parameters)));
    return true;
  };
  update();
  return { element: specs.length ? h("fieldset", { class: "fields", "aria-label": "Options" }, fields.map(([, element]) => element)) : null, read };
}

function askAction(action) {
  if (action.name === "setup") return wizard(action);
  const specs = (FIELDS[action.name] || []).filter((spec) => !spec.own || action.server === "own");
  confirmation(action, titleOf(action), specs, {});
}

/** The dialog of an action: options, plan, risk, and the name of the server where the action is dangerous. */
function confirmation(action, title, specs, fixed) {
  const plan = h("div", { "aria-live": "polite" });
  const confirm = h("div", null);
  const run = h("button", { type: "button", class: DANGEROUS.includes(action.name) ? "danger" : "primary", disabled: true, id: "run" }, action.name === "recover" ? "Show the plan" : title);
  let name = null;
  let allowed = false;
  let asked = 0;
  const parameters = () => ({ ...fixed, ...(["start", "stop"].includes(action.name) ? { server: action.server } : {}), ...fields.read() });
  const enable = () => {
    const input = confirm.querySelector("input");
    run.disabled = !allowed || (name !== null && (!input || input.value !== name));
  };
  const replan = async () => {
    const mine = ++asked;
    allowed = false;
    enable();
    if (!plan.hasChildNodes()) plan.replaceChildren(h("p", { class: "dim" }, "Reading the plan …"));
    let told;
    try {
      told = await api(`/api/actions/${action.name}/plan`, { parameters: parameters() });
    } catch (error) {
      if (mine === asked) plan.replaceChildren(failure(error));
      return;
    }
    if (mine !== asked) return;
    allowed = !told.refused;
    plan.replaceChildren(...planText(told));
    if (told.confirm !== name) {
      name = told.confirm;
      confirm.replaceChildren(...(name === null ? [] : [h("label", null, "To confirm, enter the name of the server: ", h("strong", null, name), h("input", { id: "confirm", autocomplete: "off", autocapitalize: "none", spellcheck: "false", input: enable, keydown: (event) => event.key === "Enter" && !run.disabled && run.click() }))]));
    }
    enable();
  };
  let timer = 0;
  const fields = form(specs, () => {
    clearTimeout(timer);
    allowed = false;
    enable();
    timer = setTimeout(replan, 250);
  });
  run.addEventListener("click", async () => {
    run.disabled = true;
    try {
      const { job } = await api(`/api/actions/${action.name}`, { parameters: parameters(), confirm: name });
      followJob({ id: job, command: title });
    } catch (error) {
      plan.replaceChildren(failure(error));
      enable();
    }
  });
  openDialog(title, [fields.element, plan, confirm], [h("button", { type: "button", click: closeDialog }, "Cancel"), run]);
  replan();
}

function planText(told) {
  return [
    h("p", null, h("code", { class: "cmd" }, told.command)),
    told.plan.length ? [h("h3", null, "Plan"), told.plan.length === 1 ? h("p", null, rich(told.plan[0])) : h("ol", { class: "steps" }, told.plan.map((step) => h("li", null, rich(step))))] : [],
    told.risk ? h("div", { class: "note warn" }, h("b", null, "Risk:"), rich(told.risk)) : h("p", { class: "dim" }, "No risk to data or service is known."),
    told.refused ? h("div", { class: "note bad" }, h("b", null, "Not possible:"), rich(told.refused)) : [],
  ].flat();
}

let following = null;

/** The output of a job; the job continues if the dialog is closed. */
async function followJob(job) {
  const head = h("p", { role: "status" });
  const bar = h("progress", { "aria-label": "In progress" });
  const output = h("pre", { tabindex: 0, role: "log", "aria-label": "Output" });
  const after = h("div", null);
  openDialog(job.command || "Action", [head, bar, output, after], [h("button", { type: "button", class: "primary", id: "job-close", click: closeDialog }, "Close")]);
  following = { id: job.id, head, bar, output, after, done: false };
  await readJob(following);
}

async function readJob(mine) {
  let job;
  try {
    job = await api(`/api/jobs/${encodeURIComponent(mine.id)}`);
  } catch (error) {
    if (error instanceof Failure) mine.after.replaceChildren(failure(error));
    return;
  }
  setJob(job);
  mine.done = Boolean(job.ended);
  $("dialog-title").textContent = job.command;
  mine.bar.hidden = mine.done;
  const text = job.lines.join("\n");
  mine.output.hidden = !text;
  if (mine.output.textContent !== text) {
    mine.output.textContent = text;
    mine.output.scrollTop = mine.output.scrollHeight;
  }
  mine.head.className = mine.done && job.exit !== 0 ? "error" : "";
  mine.head.textContent = !mine.done ? "Running. It continues if you close this window." : job.exit === 0 ? "✓ Done." : `✕ Failed, exit status ${job.exit}.`;
  if (mine.done && job.exit === 0 && job.action === "setup") setupDone(mine.after);
}

function setJob(job) {
  const before = state.jobs.get(job.id);
  state.jobs.set(job.id, { ...before, ...job });
  if (job.ended && (!before || !before.ended)) {
    refreshActions();
    if (job.action === "backup") load("/api/backups", (value, error) => (state.backups = error ? { error: error.message, hint: error.hint } : value));
  }
  if (following && following.id === job.id && !following.done && job.lines === undefined) readJob(following);
}

/** The set-up: which server this is, then the addresses or the block of the first server. */
function wizard(action) {
  const start = (kind) => {
    const common = [{ name: "data", text: "Data directory", hint: "the one that is found" }, { name: "password", text: "Password of the database user", secret: true, hint: "none" }, check("apply", "Write the missing settings to postgresql.conf and pg_hba.conf", "If not, the output shows the lines to add."), choice("rebuild_action", "A server that has lost its role", [["manual", "waits for a rebuild by an operator"], ["auto", "becomes the standby automatically"]])];
    const specs = {
      first: [{ name: "peer", text: "The other server: [ID=]HOST[:PORT]", hint: "nd2=192.0.2.110" }, { name: "arbiter", text: "The arbiter, if any: [ID=]HOST[:PORT]", hint: "arb=192.0.2.200" }, { name: "self", text: "This server: [ID=]HOST[:PORT]", hint: "its address on the route to the other server" }, ...common],
      join: [{ name: "join", text: "The block that the set-up of the first server printed", area: true }, ...common.slice(0, 3)],
      show: [],
    }[kind];
    confirmation(action, { first: "Set up the first server", join: "Join the pair", show: "Show the block for the other server" }[kind], specs, kind === "show" ? { show_join: true } : {});
  };
  const option = (kind, title, text) => h("button", { type: "button", class: "act", "data-setup": kind, click: () => start(kind) }, title, h("small", null, text));
  openDialog("Set up Mirroring Controller", [
    h("p", null, "The set-up writes the files of the management directory and shows the settings that PostgreSQL still lacks."),
    h("div", { class: "fields" }, option("first", "1. The first server", "It has the data, and becomes the first primary."), option("join", "2. The other server", "It joins with the block that the first set-up prints. Its data is then copied by a rebuild."), option("show", "Show the block again", "On a server that is set up. The block contains the key of the pair.")),
  ], [h("button", { type: "button", click: closeDialog }, "Cancel")]);
}

function setupDone(after) {
  after.replaceChildren(h("div", { class: "note next" }, h("b", null, "Next:"), h("ol", { class: "steps" },
    h("li", null, "Add the lines above to ", h("code", null, "pg_hba.conf"), " and ", h("code", null, "postgresql.conf"), " if the set-up has not written them."),
    h("li", null, "On the other server, open its console, select “Set up”, then “The other server”, and enter the block above. It contains the key of the pair: send it only over a secure channel."),
    h("li", null, "Start the first server here, with automatic switch enabled. Then start the other server; without data, rebuild it."))));
  api("/api/session").then((session) => {
    state.session = session;
    refreshActions();
  }, () => {});
}
