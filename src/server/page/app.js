/*
 * The page polls /api/v1/streams once a second. Only streams that are visible are connected, because the service does not
 * draw or encode a stream that has no viewers.
 */
import { door, getJson } from "./api.js";
import * as collection from "./collection.js";
import * as detail from "./detail.js";
import { announce, byId, complain, make, setText } from "./dom.js";
import { addStream } from "./editor.js";
import * as grid from "./grid.js";
import { openModels, whenChanged } from "./models.js";
import * as recordings from "./recordings.js";
import * as session from "./session.js";
import { span } from "./words.js";
import * as zones from "./zones.js";

const POLL_MS = 1000;
/** A longer time between two polls means that the computer was suspended. */
const SLEPT_MS = 15_000;

const { cards } = grid;
/** Whether the service responds; null before the first poll. */
let connected = null;
/** Whether version and models were requested since the service responds. */
let greeted = false;
/** Whether the cards show the streams that this user may see. */
let known = false;
let started = 0;
/** Whether the user has just logged in. */
let cameIn = false;

/* ---- Views ---- */

const isOpen = () => session.session.state === "open";

function show() {
  const closed = session.session.state === "closed";
  const view = closed ? "login" : !known ? "loading" : collection.current() ? "collection" : detail.current() ? "detail" : "grid";
  if (document.body.dataset.view === view) return;
  document.body.dataset.view = view;
  for (const name of ["grid", "detail", "collection"]) byId(name).hidden = view !== name;
  if (view === "login") session.openLogin();
  else byId("login").hidden = true;
}

/** A part of the address; one with a malformed % sequence is taken as it is. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/**
 * Shows the view that the address names: `#/NAME` is one stream, `#/NAME/collection` and `#/NAME/collection/ID` its collected
 * frames, everything else is the grid.
 */
function route() {
  if (!isOpen() || !known) return;
  const [name, view, frame] = window.location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  const card = cards.get(name);
  if (card && view === "collection" && session.session.mayOperate()) {
    detail.close();
    const isNew = collection.current() !== name;
    collection.open(name, frame);
    show();
    if (isNew && !frame) byId("collection-title").focus({ preventScroll: true });
    showTitle();
    assign();
    return;
  }
  collection.close();
  if (name !== "" && !card) {
    complain(`There is no stream named ${name}`);
    window.history.replaceState(null, "", "#/");
  }
  if (card) {
    detail.open(card);
    show();
    byId("detail-name").focus({ preventScroll: true });
  } else {
    const before = detail.close();
    show();
    before?.link.focus({ preventScroll: true });
    before?.root.scrollIntoView({ block: "nearest" });
  }
  showTitle();
  assign();
}

function showTitle() {
  const away = [...cards.values()].filter((card) => card.report?.state === "offline").length;
  const name = detail.current()?.name ?? collection.current();
  document.title = `${away && isOpen() ? `(${away} offline) ` : ""}${name ? `${name} · ` : ""}Maskcast`;
}

/** Connects the visible streams and disconnects all others. */
function assign() {
  const wanted = document.visibilityState === "visible" && connected === true && isOpen() && !recordings.isPlaying() && !collection.current();
  const one = detail.current();
  const isWanted = (card) => wanted && card.report?.state !== "starting" && (one ? card === one : card.isVisible);
  // First disconnect, so that connections are free: browsers limit their number.
  for (const card of cards.values()) if (!isWanted(card)) card.player.setWanted(false);
  for (const card of cards.values()) if (isWanted(card)) card.player.setWanted(true);
}

/* ---- Polling ---- */

let polledAt = performance.now();
let polling = false;
let timer = null;

async function poll() {
  if (polling) return;
  polling = true;
  const slept = performance.now() - polledAt > SLEPT_MS;
  try {
    if (connected !== true) await session.ask();
    if (isOpen()) {
      const streams = await getJson("/api/v1/streams");
      if (!greeted) await welcome();
      showStreams(streams);
      if (slept) for (const card of cards.values()) card.player.restart();
    } else {
      setConnected(true);
    }
  } catch (error) {
    // 401 means that the session has ended, not that the connection is lost.
    if (error.status !== 401) {
      if (connected !== false) console.warn(`Polling failed, trying again: ${error.message}`);
      setConnected(false);
    }
  }
  showLink();
  polledAt = performance.now();
  polling = false;
  clearTimeout(timer);
  timer = setTimeout(poll, POLL_MS);
}

function showStreams(streams) {
  const isFirst = !known;
  grid.showStreams(streams);
  known = true;
  setConnected(true);
  const name = detail.current()?.name ?? collection.current();
  if (name && !cards.has(name)) window.location.hash = "#/";
  if (isFirst) {
    route();
    // The form, which had the focus, is hidden.
    if (cameIn && document.activeElement === document.body) byId("main").focus({ preventScroll: true });
    cameIn = false;
  }
  detail.update();
  showTitle();
  assign();
}

/** Loads models and version when the service responds for the first time or again: it may have been restarted. */
async function welcome() {
  const [models, version] = await Promise.all([
    // Continue without models while one is being loaded.
    getJson("/api/v1/models").catch(() => null),
    getJson("/api/v1/version"),
  ]);
  greeted = true;
  started = Date.now() - version.uptime_s * 1000;
  detail.setHistory(version.history);
  setText(byId("version"), `Maskcast ${version.version}`);
  showModels(models);
}

/** The file of a model and its provider, with the model's name if there are several. */
function modelParts(model, several) {
  const parts = [several ? `${model.model}: ` : "", make("b", {}, model.name), ` on ${model.actual}`];
  if (model.actual !== model.requested) parts.push(make("span", { className: "differs" }, ` (requested: ${model.requested})`));
  return parts;
}

function modelDetails(model, several) {
  const name = several ? `${model.model}: ` : "";
  return `${name}${model.input.width}×${model.input.height} pixels, ${model.workers} workers, ` +
    `${model.threads} threads, batches of up to ${model.max_batch}`;
}

/** Shows the models; null while one is being loaded for the first time. */
function showModels(models) {
  detail.setModels(models ?? []);
  if (!models) {
    setText(byId("model"), "the model is being loaded");
    return;
  }
  const several = models.length > 1;
  const parts = models.flatMap((model, at) => [at > 0 ? " · " : "", ...modelParts(model, several)]);
  const text = parts.map((part) => part.textContent ?? part).join("");
  if (byId("model").textContent !== text) byId("model").replaceChildren(...parts);
  byId("model").title = models.map((model) => modelDetails(model, several)).join("\n");
}

/** The models can change while the service runs. */
setInterval(() => {
  if (connected && isOpen() && document.visibilityState === "visible") getJson("/api/v1/models").then(showModels, () => {});
}, 10_000);

function setConnected(now) {
  if (now === connected) return;
  if (now === false) announce("Connection lost, trying again");
  else if (connected === false) announce("Connected again");
  connected = now;
  if (now) door.dispatchEvent(new Event("connected"));
  greeted &&= now;
  document.body.classList.toggle("lost", !now);
  if (!now) {
    for (const card of cards.values()) card.forget();
    detail.forget();
  }
  assign();
}

function showLink() {
  byId("link").dataset.link = connected ? "up" : "lost";
  const text = !connected ? "connection lost, trying again" : isOpen() ? `up ${span((Date.now() - started) / 1000)}` : "";
  setText(byId("link-text"), text);
}

/* ---- Keys ---- */

const isTyping = (element) => element.closest?.("input:not([type=checkbox]), textarea, select, video, [contenteditable]");

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const view = document.body.dataset.view;
  if (view === "grid") {
    if (!isTyping(event.target) && grid.onKey(event)) event.preventDefault();
    return;
  }
  if (view === "collection" && !isTyping(event.target) && collection.onKey(event)) event.preventDefault();
  if (view !== "detail") return;
  if (zones.onKey(event)) return;
  if (event.key === "Escape") {
    if (document.fullscreenElement) document.exitFullscreen();
    else window.location.hash = "#/";
  } else if (isTyping(event.target)) {
    return;
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const link = byId(event.key === "ArrowLeft" ? "previous" : "next");
    if (link.hasAttribute("href")) window.location.replace(link.href);
  } else if (event.key === "f" || event.key === "F") {
    detail.toggleFullscreen();
  }
});

/* ---- Start ---- */

window.addEventListener("hashchange", route);
document.addEventListener("visibilitychange", assign);
window.addEventListener("pagehide", () => {
  for (const card of cards.values()) card.player.setWanted(false);
});
window.addEventListener("pageshow", assign);
recordings.playing.addEventListener("change", assign);
grid.whenVisible(assign);
byId("add").addEventListener("click", addStream);
byId("models-open").addEventListener("click", openModels);
whenChanged(showModels);
session.session.addEventListener("change", () => {
  if (isOpen()) {
    cameIn = document.body.dataset.view === "login";
    poll();
    door.dispatchEvent(new Event("connected"));
  } else {
    // The next user may not be allowed to see the streams.
    detail.close();
    collection.close();
    grid.showStreams([]);
    [known, greeted] = [false, false];
  }
  show();
  route();
  assign();
});
poll();
