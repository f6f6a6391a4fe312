/* The grid view: a card for each stream. */
import { announce, byId, setText } from "./dom.js";
import { Player } from "./player.js";
import { saveSnapshot } from "./snapshot.js";
import { moment } from "./words.js";

const list = byId("streams");

/** The cards by stream name. */
export const cards = new Map();

/** Called when the set of visible cards changes. */
let onVisible = () => {};

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    for (const card of cards.values()) if (card.root === entry.target) card.isVisible = entry.isIntersecting;
  }
  onVisible();
}, { rootMargin: "100px" });

/** A state as text. */
export const words = (state) => state.replaceAll("_", " ");

/** Text of the placeholder for missing video. */
function placeholder(state, connected) {
  if (!connected) return "No connection to Maskcast";
  const texts = { offline: "No video: the source is offline", starting: "Waiting for the first frame", waiting_for_keyframe: "Waiting for a keyframe of the source" };
  return texts[state] ?? "Connecting…";
}

export class Card {
  report = null;
  isVisible = false;

  constructor(name) {
    this.name = name;
    this.player = new Player(name);
    this.root = byId("card").content.firstElementChild.cloneNode(true);
    this.root.dataset.stream = name;
    const find = (selector) => this.root.querySelector(selector);
    this.link = find(".open");
    this.frame = find(".frame");
    this.pill = find(".pill");
    this.alarm = find(".alarm");
    this.numbers = find(".numbers");
    this.reason = find(".state-reason");
    this.weakened = find(".weakened");
    this.link.href = `#/${name}`;
    find(".name-for-link").textContent = `${name}, show large`;
    find(".name").textContent = name;
    this.root.setAttribute("aria-label", name);
    const shot = find(".shot");
    shot.setAttribute("aria-label", `Snapshot of ${name}`);
    shot.title = "Snapshot";
    shot.addEventListener("click", () => saveSnapshot(name));
    this.takeBack();
    observer.observe(this.root);
  }

  /** Moves the video back from the view of one stream. */
  takeBack() {
    this.frame.replaceChildren(this.player.root);
    this.player.resume();
  }

  /** Shows a report of the API. */
  update(report) {
    const before = this.report;
    this.report = report;
    const { state } = report;
    if (before && before.state !== state) announce(`${this.name} is ${words(state)}${report.reason ? `: ${report.reason}` : ""}`);
    showState(this.pill, state, report.since);
    showReason(this.reason, report);
    showWeakened(this.weakened, report);
    // The link covers the card, so only its tooltip is shown.
    this.link.title = this.reason.hidden ? "" : (report.reason ?? "");
    this.showAlarm(before?.rules, report.rules);
    this.numbers.hidden = isAway(state);
    setText(this.numbers, [...numbers(report), this.player.transport].join(" · "));
    this.player.rate = report.fps;
    setText(this.player.placeholder, placeholder(state, true));
  }

  /** Marks the stream while a rule is active. */
  showAlarm(before, rules) {
    const names = (list) => (list ?? []).filter((rule) => rule.state === "active").map((rule) => rule.name);
    const active = names(rules);
    this.alarm.hidden = active.length === 0;
    setText(this.alarm, active.join(", "));
    const known = new Set(names(before));
    for (const rule of active) if (before && !known.has(rule)) announce(`${this.name}: rule ${rule} is active`);
  }

  /** Hides the last report while the service does not respond, because it may be out of date. */
  forget() {
    showState(this.pill, "unknown");
    this.reason.hidden = this.weakened.hidden = this.alarm.hidden = true;
    setText(this.numbers, "–");
    setText(this.player.placeholder, placeholder(null, false));
  }

  remove() {
    this.player.setWanted(false);
    observer.unobserve(this.root);
    this.root.remove();
  }
}

export function showState(pill, state, since) {
  setText(pill, words(state));
  pill.dataset.state = state;
  pill.title = since ? `since ${new Date(since).toLocaleString()}` : "";
}

export function showReason(element, { state, reason, since }) {
  element.hidden = !["offline", "stale", "waiting_for_keyframe"].includes(state);
  element.dataset.state = state;
  if (element.hidden) return;
  element.title = reason ?? "";
  setText(element, `${words(state)} since ${moment(since)}${reason ? `: ${reason}` : ""}`);
}

/** Shows that the configuration file has weakened the redaction of the stream, for a day. */
export function showWeakened(element, { redaction_weakened: changes }) {
  element.hidden = !changes?.length;
  if (element.hidden) return;
  element.title = changes.map(({ at, change }) => `${new Date(at).toLocaleString()}: ${change}`).join("\n");
  const { at, change } = changes.at(-1);
  setText(element, `Redaction weakened at ${moment(at)}: ${change}`);
}

/** Whether a stream in this state has no frames. */
export const isAway = (state) => ["offline", "starting", "waiting_for_keyframe"].includes(state);

/** Rate, delay and size, where known. */
export function numbers({ state, fps, latency_ms: latency, width, height }) {
  if (isAway(state)) return [];
  return [`${fps.toFixed(1)} fps`, latency === null ? "" : `${latency.toFixed(0)} ms`, width === null ? "" : `${width}×${height}`].filter(Boolean);
}

/** Shows cards for these streams in this order. */
export function showStreams(streams) {
  const names = new Set(streams.map((stream) => stream.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.remove();
    cards.delete(name);
  }
  streams.forEach((stream, index) => {
    let card = cards.get(stream.name);
    if (!card) {
      card = new Card(stream.name);
      cards.set(stream.name, card);
    }
    const place = list.children[index];
    if (place !== card.root) list.insertBefore(card.root, place ?? null);
    card.update(stream);
  });
  list.dataset.count = streams.length <= 1 ? "one" : streams.length <= 4 ? "few" : streams.length <= 9 ? "some" : "many";
  byId("empty").hidden = streams.length > 0;
}

/** Names of the streams in the order of their cards. */
export const order = () => [...list.children].map((root) => root.dataset.stream);

export function whenVisible(action) {
  onVisible = action;
}

/* ---- Keys ---- */

/** The next card: left and right in the order of the cards, up and down by position. */
function neighbour(root, key) {
  const roots = [...list.children];
  const at = roots.indexOf(root);
  if (key === "ArrowLeft") return roots[at - 1];
  if (key === "ArrowRight") return roots[at + 1];
  if (key === "Home") return roots[0];
  if (key === "End") return roots.at(-1);
  const { left, top } = root.getBoundingClientRect();
  const isThere = (other) => (key === "ArrowDown" ? other.top > top + 1 : other.top < top - 1);
  const distance = (other) => 4 * Math.abs(other.top - top) + Math.abs(other.left - left);
  const boxes = roots.map((other) => [other, other.getBoundingClientRect()]).filter(([, box]) => isThere(box));
  return boxes.sort(([, a], [, b]) => distance(a) - distance(b))[0]?.[0];
}

/** Moves the focus between cards. Returns whether the key was handled. */
export function onKey(event) {
  if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return false;
  const here = document.activeElement?.closest(".card");
  // Without focus, or with the focus in the page's header, they select the first card.
  const inside = document.activeElement?.closest("main");
  if (!here && inside && document.activeElement !== inside) return false;
  const next = here ? neighbour(here, event.key) : list.firstElementChild;
  if (!next) return Boolean(here);
  next.querySelector(".open").focus();
  next.scrollIntoView({ block: "nearest" });
  return true;
}
