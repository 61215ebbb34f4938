// The picture of the pair: one arrangement for wide pages, one for telephones. What is broken differs in words and in shape.

const ROLE = {
  "primary": ["●", "PRIMARY", "ok"],
  "standby": ["○", "STANDBY", "ok"],
  "none(inactivated primary)": ["✕", "INACTIVATED PRIMARY", "bad"],
  "none(inactivated standby)": ["✕", "INACTIVATED STANDBY", "bad"],
  "none(unknown)": ["?", "ROLE UNKNOWN", "off"],
};
const MARK = { ok: "✓", warn: "!", bad: "✕", off: "?" };
const CONTROLLER = { normal: ["responds", "ok"], abnormal: ["does not respond", "bad"], unknown: ["no heartbeat yet", "off"] };
const PROCESS = { postmaster: "down, or does not respond", wal_sender: "sends no WAL to the standby", wal_receiver: "receives no WAL" };

function instance(server) {
  if (server.db_proc_status === "normal") return ["normal", "ok"];
  if (server.db_proc_status === "unknown") return ["unknown", "off"];
  const failed = server.db_proc_status.replace(/abnormal\(([^)]*)\)/g, "$1").split(",");
  const down = failed.includes("postmaster");
  return [down ? PROCESS.postmaster : failed.map((name) => PROCESS[name] || name).join(", "), down ? "bad" : "warn"];
}

function disks(server, status) {
  const tone = { normal: "ok", unknown: "off" }[server.disk_status] || "bad";
  let text = server.disk_status;
  const data = server.server_id === status.local_server && status.disk_space.find((space) => space.directory === "data");
  if (data && data.size_bytes) {
    text += ` · ${Math.round(100 * (1 - data.free_bytes / data.size_bytes))} % used`;
    if (data.state !== "normal") return [text, data.state === "full" ? "bad" : "warn"];
  }
  return [text, tone];
}

/** The server that serves, as far as this server knows. */
const isPrimary = (server) => server.host_role === "primary";
const bothPrimary = (status) => status.servers.every(isPrimary);
const alone = (status) => status.view !== null && status.view.mode === "degraded";

/** What a server's box shows, by line: text, tone and the fault that it leads to. */
function serverLines(status, n) {
  const server = status.servers[n];
  const primary = isPrimary(server);
  const [mark, word, tone] = ROLE[server.host_role] || ["?", server.host_role.toUpperCase(), "off"];
  const split = bothPrimary(status);
  const role = split ? "STANDALONE PRIMARY" : primary && alone(status) ? "PRIMARY, ALONE" : word;
  const side = primary || (status.view && status.view.primary === server.server_id) ? "primary" : "standby";
  const controller = CONTROLLER[server.host_status] || [server.host_status, "off"];
  const [runs, runsTone] = instance(server);
  const [disk, diskTone] = disks(server, status);
  const lines = [
    { label: "controller", text: controller[0], tone: controller[1], fault: `${side}-controller` },
    { label: "instance", text: runs, tone: runsTone, fault: `${side}-instance` },
    { label: "disks", text: disk, tone: diskTone, fault: `${side}-disk` },
  ];
  const position = server.lsn ? `${server.lsn} · timeline ${server.timeline}` : "position unknown";
  const worst = split || tone === "bad" || lines.some((line) => line.tone === "bad") ? "bad" : primary && alone(status) ? "warn" : lines.some((line) => line.tone === "warn") ? "warn" : tone;
  return { server, side, mark: split ? "!" : mark, role, roleTone: split ? "bad" : primary && alone(status) ? "warn" : tone, lines, position, box: worst };
}

const measure = document.createElement("canvas").getContext("2d");

/** Shortens a text to a width. */
function fit(text, width, font) {
  measure.font = font || "14px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', sans-serif";
  if (measure.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && measure.measureText(text.slice(0, end) + "…").width > width) end--;
  return text.slice(0, end).trimEnd() + "…";
}

function label(x, y, text, style, anchor) {
  return v("text", { x, y, class: style, "text-anchor": anchor }, text);
}

/** A part of the picture that leads to its faults: the drawing, and a transparent button over it. */
function part(key, name, faults, area, ...children) {
  const open = (event) => {
    const hit = event.type === "click" ? document.elementsFromPoint(event.clientX, event.clientY).map((element) => element.closest("[data-fault]")).find(Boolean) : null;
    whatIf(name, faults, hit ? hit.dataset.fault : faults[0]);
  };
  const keys = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open(event);
  };
  return v("g", null, v("g", { "aria-hidden": "true" }, children),
    v("rect", { ...area, class: "hit", role: "button", tabindex: 0, "data-key": key, "aria-label": `${name}. Show what happens if it fails`, click: open, keydown: keys }));
}

const BOX_HEIGHT = 168;

function serverBox(status, n, x, y, width) {
  const { server, side, mark, role, roleTone, lines, position, box } = serverLines(status, n);
  const inner = width - 36;
  const spoken = `${server.server_id}, ${role.toLowerCase()}: ${lines.map((line) => `${line.label} ${line.text}`).join(", ")}, ${position}`;
  const faults = ["host", "instance", "instance-hang", "disk", "controller", "isolated"].map((what) => `${side}-${what}`);
  const name = fit(server.server_id, inner * 0.6, "700 16px sans-serif");
  measure.font = "700 16px sans-serif";
  const at = x + 26 + measure.measureText(name).width + 8;
  return part(`server-${n}`, spoken, faults, { x, y, width, height: BOX_HEIGHT, rx: 12 },
    v("rect", { class: `box ${box}`, x, y, width, height: BOX_HEIGHT, rx: 12 }),
    label(x + 18, y + 29, name, "name"),
    label(at, y + 29, fit(server.host, x + width - 18 - at), "dimt"),
    label(x + 18, y + 55, fit(`${mark} ${role}`, inner), `role t-${roleTone}`),
    lines.map((line, i) =>
      v("g", { "data-fault": line.fault },
        label(x + 18, y + 82 + 23 * i, MARK[line.tone], `t-${line.tone}`),
        label(x + 38, y + 82 + 23 * i, fit(`${line.label}: ${line.text}`, inner - 20)))),
    label(x + 18, y + 153, fit(position, inner, "12.5px monospace"), "monot"));
}

function arbiterBox(status, x, y, width) {
  const arbiter = status.arbiter;
  const online = arbiter.status === "online";
  const problem = online && (arbiter.ledger_error ? "cannot consent" : arbiter.disk_status === "full" ? "disk full" : arbiter.disk_status === "nearly_full" ? "disk nearly full" : null);
  const tone = !online ? "bad" : problem ? "warn" : "ok";
  const text = `${MARK[tone]} ${[arbiter.status, problem].filter(Boolean).join(", ")}`;
  return part("arbiter", `Arbiter ${arbiter.arbiter_id}: ${text.slice(2)}`, ["arbiter-host", "arbiter"], { x, y, width, height: 70, rx: 10 },
    v("rect", { class: `box ${tone === "ok" ? "" : tone}`, x, y, width, height: 70, rx: 10 }),
    label(x + width / 2, y + 29, fit(`${arbiter.arbiter_id} · arbiter`, width - 16), "name", "middle"),
    label(x + width / 2, y + 52, fit(text, width - 16), `t-${tone}`, "middle"));
}

/** The heartbeats between the servers, and WAL. */
function links(status) {
  const other = status.servers.find((server) => server.server_id !== status.local_server);
  const heartbeat = { normal: ["heartbeats", "beat"], abnormal: ["no heartbeat", "cut"], unknown: ["no heartbeat yet", "idle"] }[other.host_status] || ["heartbeat unknown", "idle"];
  const from = status.servers.findIndex(isPrimary);
  const standby = status.servers.findIndex((server) => server.host_role === "standby");
  const broken = status.servers.some((server) => /wal_(sender|receiver)/.test(server.db_proc_status));
  const flows = from >= 0 && standby >= 0 && !broken && !bothPrimary(status);
  const lag = status.lag_bytes === null ? "" : status.lag_bytes === 0 ? "no lag" : `${bytes(status.lag_bytes)} behind`;
  const late = status.lag_seconds !== null && status.lag_seconds >= 1 && status.lag_bytes ? `, ${duration(status.lag_seconds)}` : "";
  return { heartbeat, flows, from, wal: flows ? ["WAL", lag + late] : ["no WAL", bothPrimary(status) ? "the data diverges" : ""] };
}

function clients(status) {
  const primaries = status.servers.filter(isPrimary);
  if (primaries.length === 2) return ["both servers accept commits", "bad"];
  if (!primaries.length) return ["no server accepts commits", "bad"];
  if (status.commits_waiting) return ["commits wait for the standby", "warn"];
  return [`clients · ${primaries[0].server_id} accepts commits`, "ok"];
}

function line(style, x1, y1, x2, y2, crossed) {
  const [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2];
  return [v("line", { class: style, x1, y1, x2, y2 }), crossed && v("line", { class: "cross", x1: x - 7, y1: y - 7, x2: x + 7, y2: y + 7 }), crossed && v("line", { class: "cross", x1: x - 7, y1: y + 7, x2: x + 7, y2: y - 7 })];
}

function arrow(x, y, direction, off) {
  const points = { right: [[x - 12, y - 7], [x, y], [x - 12, y + 7]], left: [[x + 12, y - 7], [x, y], [x + 12, y + 7]], up: [[x - 7, y + 12], [x, y], [x + 7, y + 12]], down: [[x - 7, y - 12], [x, y], [x + 7, y - 12]] }[direction];
  return v("polygon", { class: off ? "arrow off" : "arrow", points: points.map((point) => point.join(",")).join(" ") });
}

function drawWide(status, width) {
  const box = Math.min(340, Math.floor((width - 130) / 2));
  const [left, right, top] = [1, width - box - 1, status.arbiter ? 104 : 4];
  const middle = width / 2;
  const between = links(status);
  const [beatY, walY] = [top + 52, top + 116];
  const parts = [];
  if (status.arbiter) {
    const width2 = Math.min(200, width - 2 * 40);
    const online = status.arbiter.status === "online";
    for (const [n, x, from] of [[0, left + box * 0.6, middle - width2 / 2], [1, right + box * 0.4, middle + width2 / 2]]) {
      const seen = status.servers[n].server_id === status.local_server;
      parts.push(line(seen ? (online ? "beat" : "cut") : "idle", x, top, from, 44, seen && !online));
    }
    parts.push(arbiterBox(status, middle - width2 / 2, 4, width2));
  }
  parts.push(part("link", `Network between the servers: ${between.heartbeat[0]}`, ["link", "primary-isolated", "standby-isolated"], { x: left + box + 4, y: beatY - 26, width: right - left - box - 8, height: 40, rx: 8 },
    line(between.heartbeat[1], left + box, beatY, right, beatY, between.heartbeat[1] === "cut"),
    label(middle, beatY - 12, fit(between.heartbeat[0], right - left - box - 12), "dimt", "middle")));
  const toRight = between.from <= 0;
  const flow = between.flows ? "flow" : "cut";
  parts.push(part("replication", `Replication: ${between.wal.join(", ")}`, ["replication"], { x: left + box + 4, y: walY - 26, width: right - left - box - 8, height: 58, rx: 8 },
    line(flow, left + box + (toRight ? 0 : 12), walY, right - (toRight ? 12 : 0), walY, !between.flows),
    between.flows && arrow(toRight ? right - 1 : left + box + 1, walY, toRight ? "right" : "left"),
    label(middle, walY - 11, between.wal[0], "dimt", "middle"),
    label(middle, walY + 22, fit(between.wal[1], right - left - box - 12), "dimt", "middle")));
  parts.push(serverBox(status, 0, left, top, box), serverBox(status, 1, right, top, box));
  const [text, tone] = clients(status);
  const bottom = top + BOX_HEIGHT;
  status.servers.forEach((server, n) => {
    if (!isPrimary(server)) return;
    const x = n ? right + box / 2 : left + box / 2;
    parts.push(line("flow", x, bottom + 42, x, bottom + 13), arrow(x, bottom + 1, "up"));
  });
  const first = status.servers.findIndex(isPrimary);
  const x = first < 0 || bothPrimary(status) ? middle : first ? right + box / 2 : left + box / 2;
  parts.push(label(x, bottom + 62, `${tone === "ok" ? "" : MARK[tone] + " "}${text}`, `t-${tone === "ok" ? "ok" : tone}`, "middle"));
  return [parts, bottom + 72];
}

function drawNarrow(status, width) {
  const between = links(status);
  const parts = [];
  const first = status.arbiter ? 108 : 4;
  const second = first + BOX_HEIGHT + 100;
  const [beatX, walX] = [width * 0.27, width * 0.73];
  const [above, below] = [first + BOX_HEIGHT, second];
  const centre = (above + below) / 2;
  if (status.arbiter) {
    const online = status.arbiter.status === "online";
    parts.push(line(online ? "beat" : "cut", width / 2, 74, width / 2, first, !online), arbiterBox(status, width / 2 - 90, 4, 180));
  }
  parts.push(part("link", `Network between the servers: ${between.heartbeat[0]}`, ["link", "primary-isolated", "standby-isolated"], { x: 2, y: above + 6, width: width / 2 - 6, height: below - above - 12, rx: 8 },
    line(between.heartbeat[1], beatX, above, beatX, below),
    v("rect", { class: "mask", x: beatX - 62, y: centre - 14, width: 124, height: 26 }),
    label(beatX, centre + 5, `${between.heartbeat[1] === "cut" ? "✕ " : ""}${between.heartbeat[0]}`, `dimt${between.heartbeat[1] === "cut" ? " t-bad" : ""}`, "middle")));
  const down = between.from <= 0;
  parts.push(part("replication", `Replication: ${between.wal.join(", ")}`, ["replication"], { x: width / 2 + 4, y: above + 6, width: width / 2 - 6, height: below - above - 12, rx: 8 },
    line(between.flows ? "flow" : "cut", walX, above + (down ? 0 : 12), walX, below - (down ? 12 : 0)),
    between.flows && arrow(walX, down ? below - 1 : above + 1, down ? "down" : "up"),
    v("rect", { class: "mask", x: walX - 66, y: centre - 22, width: 132, height: 44 }),
    label(walX, centre - 3, `${between.flows ? "" : "✕ "}${between.wal[0]}`, `dimt${between.flows ? "" : " t-bad"}`, "middle"),
    label(walX, centre + 15, fit(between.wal[1], 130), "dimt", "middle")));
  parts.push(serverBox(status, 0, 1, first, width - 2), serverBox(status, 1, 1, second, width - 2));
  const [text, tone] = clients(status);
  const bottom = second + BOX_HEIGHT;
  parts.push(label(width / 2, bottom + 26, fit(`${MARK[tone]} ${text}`, width), `t-${tone}`, "middle"));
  return [parts, bottom + 36];
}

function renderPicture() {
  const status = state.status;
  const width = Math.floor($("picture").clientWidth);
  if (!status || width < 100) return;
  const key = [width, status.servers, status.arbiter, status.view && [status.view.mode, status.view.primary], status.local_server, status.commits_waiting, status.lag_bytes,
    Math.round(status.lag_seconds || 0), status.disk_space.map((space) => [space.directory, space.state, Math.round((1000 * space.free_bytes) / space.size_bytes)])];
  show($("picture"), key, () => {
    const [parts, height] = width >= 600 ? drawWide(status, width) : drawNarrow(status, width);
    return v("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `The pair ${names(status).join(" and ")}: ${clients(status)[0]}` }, parts);
  });
}

const names = (status) => status.servers.map((server) => server.server_id);
