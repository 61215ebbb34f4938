// The session, and the stream of events. The stream is read with fetch, because a comment every 5 seconds shows that the
// connection lives, which EventSource hides from the page.

const SILENCE_MS = 12000;
let stream = null;
let retry = 0;
let retryTimer = 0;

function loggedOut(reason) {
  const had = state.session;
  state.session = null;
  state.lostSince = null;
  if (stream) stream.abort();
  stream = null;
  clearTimeout(retryTimer);
  closeDialog();
  showConnection();
  $("console").hidden = true;
  $("logout").hidden = true;
  $("where").replaceChildren();
  $("word").textContent = "";
  $("title").textContent = document.title = "Mirroring Controller";
  $("login").hidden = false;
  $("login-reason").textContent = reason;
  $("password").value = "";
  if (had || document.activeElement === document.body) $("user").focus();
}

async function login(event) {
  event.preventDefault();
  $("login-error").textContent = "";
  try {
    const session = await api("/api/login", { user: $("user").value, password: $("password").value });
    $("password").value = "";
    enter(session);
    $("main").focus();
  } catch (error) {
    $("login-error").textContent = [error.message, error.hint].filter(Boolean).join(" ");
    $("password").select();
  }
}

function enter(session) {
  state.session = session;
  Object.assign(state, { status: null, problem: null, history: [], messages: [], actions: [], check: null });
  state.jobs.clear();
  $("login").hidden = true;
  $("console").hidden = false;
  $("logout").hidden = false;
  $("actions").hidden = !operator();
  $("console").classList.toggle("viewer", !operator());
  connect();
}

/** One connection: everything is read again, since what happened before it is not known. */
async function connect() {
  clearTimeout(retryTimer);
  const mine = (stream = new AbortController());
  state.heard = Date.now();
  try {
    const answer = await fetch("/api/events", { headers: { Accept: "text/event-stream" }, credentials: "same-origin", cache: "no-store", signal: mine.signal });
    if (answer.status === 401) return loggedOut("The session has ended. Log in again.");
    if (!answer.ok) throw new Failure(answer.status, {});
    reload();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      heard();
      const blocks = (rest + value.replace(/\r/g, "")).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) receive(block);
    }
  } catch (error) {
    if (stream !== mine) return;
  }
  if (stream !== mine || !state.session) return;
  lose();
  retryTimer = setTimeout(connect, Math.min(250 * 2 ** retry++, 5000));
}

function heard() {
  state.heard = Date.now();
  retry = 0;
  if (state.lostSince !== null) {
    state.lostSince = null;
    showConnection();
  }
}

function lose() {
  if (state.lostSince === null) state.lostSince = state.heard;
  showConnection();
}

function showConnection() {
  const lost = state.lostSince !== null;
  document.body.classList.toggle("stale", lost);
  $("lost").hidden = !lost;
  show($("lost"), [state.lostSince], () =>
    lost ? ["Connection lost since ", when(state.lostSince), ". This page shows the last known state, which may be out of date. It tries to connect again."] : []
  );
  if (state.session) render();
}

function receive(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trim());
  }
  if (!data.length) return;
  let value;
  try {
    value = JSON.parse(data.join("\n"));
  } catch (error) {
    return;
  }
  if (name === "status") setStatus(value);
  else if (name === "history") load("/api/history", (rows) => (state.history = rows || state.history));
  else if (name === "message") state.messages = [value, ...state.messages].slice(0, 500);
  else if (name === "job") setJob(value);
  else if (name === "logout") return loggedOut("The session has ended. Log in again.");
  render();
}

function setStatus(value) {
  const before = state.status;
  if (value.error !== undefined) {
    state.problem = value;
  } else {
    state.problem = null;
    value.received = Date.now();
    state.status = value;
  }
  refreshActions();
  if (before && !state.problem && before.mirroring_status !== value.mirroring_status) runCheck();
}

async function load(path, put) {
  try {
    put(await api(path));
    if (state.session) render();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 0) return;
    put(null, error);
    if (state.session) render();
  }
}

/** Reads everything that events do not carry. */
function reload() {
  load("/api/history", (rows) => (state.history = rows || []));
  load("/api/messages", (rows) => (state.messages = rows || []));
  load("/api/jobs", (rows) => (rows || []).forEach((job) => state.jobs.set(job.id, job)));
  load("/api/backups", (value, error) => (state.backups = error ? { error: error.message, hint: error.hint } : value));
  state.faults = null;
  refreshActions();
  runCheck();
  if (following && !following.done) readJob(following);
}

let actionsTimer = 0;
function refreshActions() {
  if (!operator()) return;
  clearTimeout(actionsTimer);
  actionsTimer = setTimeout(() => load("/api/actions", (rows) => (state.actions = rows || state.actions)), 200);
}

let checking = false;
async function runCheck() {
  if (checking) return;
  checking = true;
  $("recheck").disabled = true;
  await load("/api/check", (value, error) => (state.check = error ? { error } : value));
  checking = false;
  $("recheck").disabled = false;
}

/** Silence is a loss too: a network that is cut ends no connection. */
function tick() {
  for (const element of document.querySelectorAll(".ago")) element.textContent = ` (${duration((Date.now() - element.dataset.at) / 1000)} ago)`;
  if (!state.session || !stream) return;
  if (Date.now() - state.heard > SILENCE_MS) {
    const old = stream;
    lose();
    connect();
    old.abort();
  }
}

function again() {
  if (document.visibilityState === "visible" && state.session && state.lostSince !== null) {
    const old = stream;
    connect();
    if (old) old.abort();
  }
}
