// The page as a whole.

function renderWhere() {
  const session = state.session;
  const live = state.lostSince === null;
  show($("where"), [session, live, zone], () => [
    session.server ? h("li", null, `console on ${session.server}`) : null, h("li", null, `${session.user} (${session.role})`), h("li", null, `times in ${zone}`),
    h("li", { id: "live" }, live ? "● live" : "✕ not connected")]);
}

let frame = 0;
let pressed = 0;

/** Nothing is drawn between press and release: a click on an element that was replaced meanwhile would be lost. */
function watchPointer() {
  addEventListener("pointerdown", () => (pressed = Date.now()), true);
  for (const end of ["click", "pointercancel"]) addEventListener(end, () => (pressed = 0));
}

/** Draws at the next frame, once for any number of changes; in a hidden page without waiting for one. */
function render() {
  if (frame) return;
  frame = document.hidden ? setTimeout(draw, 50) : requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  if (!state.session) return;
  if (Date.now() - pressed < 1000) {
    frame = setTimeout(draw, 50);
    return;
  }
  renderWhere();
  renderVerdict();
  renderProgress();
  renderPicture();
  $("pair").hidden = !state.status;
  renderActions();
  renderTimeline();
  renderMessages();
  renderFindings();
  renderWhatIf();
  renderBackups();
}

async function begin() {
  $("login").addEventListener("submit", login);
  $("logout").addEventListener("click", async () => {
    await api("/api/logout", {}).catch(() => {});
    loggedOut("Logged out.");
  });
  $("recheck").addEventListener("click", runCheck);
  $("important").addEventListener("change", render);
  $("dialog").addEventListener("close", dialogClosed);
  $("dialog").addEventListener("keydown", trap);
  document.addEventListener("visibilitychange", again);
  addEventListener("online", again);
  watchPointer();
  new ResizeObserver(render).observe($("picture"));
  setInterval(tick, 1000);
  try {
    enter(await api("/api/session"));
  } catch (error) {
    if (error.status !== 401) $("login-error").textContent = error.message;
    loggedOut("");
  }
}

begin();
