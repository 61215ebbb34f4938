"use strict";
// Elements, times and requests. Text of the server reaches the document only as text nodes.

const $ = (id) => document.getElementById(id);
const state = { session: null, status: null, problem: null, history: [], messages: [], actions: [], jobs: new Map(), check: null, heard: 0, lostSince: null };

/** An element with attributes (a function is a listener) and children; a string becomes a text node. */
function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in a drawing. */
function v(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const shown = new WeakMap();

/** Replaces the contents if the key has changed, and keeps the focus on the element with the same `data-key`. */
function show(element, key, build) {
  const text = JSON.stringify(key);
  if (shown.get(element) === text) return;
  shown.set(element, text);
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  element.replaceChildren(...[build()].flat(9).filter((child) => child));
  if (focused) {
    const same = [...element.querySelectorAll("[data-key]")].find((candidate) => candidate.dataset.key === focused);
    if (same) same.focus();
  }
}

/** Text with its commands set apart: what stands in double quotes and begins with a program of this package. */
function rich(text) {
  const parts = String(text).split(/"((?:mc_ctl|mc_arb|mc_web) [^"]*)"/);
  return parts.map((part, n) => (n % 2 ? h("code", { class: "cmd" }, part) : part));
}

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const dayAndClock = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

/** A time in the reader's zone, with UTC in its title; the day only if it is not today. */
function when(time, ago) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return h("time", null, String(time));
  const today = date.toDateString() === new Date().toDateString();
  const utc = date.toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
  const element = h("time", { datetime: date.toISOString(), title: utc }, (today ? clock : dayAndClock).format(date));
  if (!ago) return element;
  return [element, h("span", { class: "ago", "data-at": date.getTime() }, ` (${duration((Date.now() - date) / 1000)} ago)`)];
}

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function bytes(count) {
  if (count === null || count === undefined) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let n = 0;
  while (count >= 1024 && n < 4) {
    count /= 1024;
    n++;
  }
  return `${n && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[n]}`;
}

/** A failed request: the error of the server, and its hint; status 0 without an answer. */
class Failure extends Error {
  constructor(status, body) {
    super(body.error || `The server answered with status ${status}.`);
    this.status = status;
    this.hint = body.hint || "";
    this.exit = body.exit;
  }
}

/** GET, or POST if there is a body. A session that has ended leads to the login. */
async function api(path, body) {
  const options = { headers: { Accept: "application/json" }, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
    if (state.session) options.headers["X-CSRF-Token"] = state.session.csrf;
  }
  const answer = await fetch(path, options).catch(() => {
    throw new Failure(0, { error: "The console does not respond." });
  });
  const data = await answer.json().catch(() => ({}));
  if (answer.ok) return data;
  if (answer.status === 401 && path !== "/api/login") loggedOut(state.session ? "The session has ended. Log in again." : "");
  throw new Failure(answer.status, data);
}

/** What a failure shows. */
function failure(error) {
  return h("div", { class: "note bad", role: "alert" }, h("b", null, "Failed:"), rich(error.message), error.hint ? [h("br"), rich(error.hint)] : null);
}

const operator = () => state.session !== null && state.session.role === "operator";
