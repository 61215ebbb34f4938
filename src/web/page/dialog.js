// Dialogs: the element makes the rest of the page inert and closes on Esc; the focus returns to where it was.

let opener = null;
let openerKey = null;

function openDialog(title, body, buttons) {
  const dialog = $("dialog");
  if (!dialog.open) {
    opener = document.activeElement;
    openerKey = opener && opener.dataset ? opener.dataset.key : null;
  }
  dialog.onkeydown = null;
  const heading = h("h2", { id: "dialog-title", tabindex: -1 }, title);
  dialog.replaceChildren(heading, ...body.flat(9).filter(Boolean), h("div", { class: "buttons" }, buttons));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  const first = dialog.querySelector("select, input, textarea, button");
  (first && !first.closest(".buttons") ? first : heading).focus();
}

function closeDialog() {
  if ($("dialog").open) $("dialog").close();
}

/** The element that opened the dialog may have been drawn again. */
function dialogClosed() {
  following = null;
  $("dialog").replaceChildren();
  const again = opener && opener.isConnected ? opener : openerKey && [...document.querySelectorAll("[data-key]")].find((element) => element.dataset.key === openerKey);
  if (again) again.focus();
  else $("main").focus();
}

/** Keeps Tab inside the dialog; without it, Tab also reaches the browser's own controls. */
function trap(event) {
  if (event.key !== "Tab") return;
  const stops = [...$("dialog").querySelectorAll("a[href], button, input, select, textarea, [tabindex='0']")].filter((element) => !element.disabled && element.getClientRects().length);
  if (!stops.length) return;
  const [first, last] = [stops[0], stops[stops.length - 1]];
  const active = document.activeElement;
  if (event.shiftKey ? active === first || !stops.includes(active) : active === last) {
    event.preventDefault();
    (event.shiftKey ? last : first).focus();
  }
}
