/* All streams, one card each. */
import { announce, byId, setText } from "./dom.js";
import { Player } from "./player.js";
import { saveSnapshot } from "./snapshot.js";
import { moment } from "./words.js";

const list = byId("streams");

/** In the service's order. */
export const cards = new Map();

/** Called when other cards can be seen. */
let onVisible = () => {};

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    for (const card of cards.values()) if (card.root === entry.target) card.isVisible = entry.isIntersecting;
  }
  onVisible();
}, { rootMargin: "100px" });

/** A state as it is shown. */
export const words = (state) => state.replaceAll("_", " ");

/** What a placeholder says where there is no picture. */
function placeholder(state, connected) {
  if (!connected) return "No connection to Maskcast";
  const texts = { offline: "No picture: the source is away", starting: "Waiting for the first picture", waiting_for_keyframe: "Waiting for a keyframe of the camera" };
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
    this.numbers = find(".numbers");
    this.reason = find(".reason");
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

  /** The picture comes back from where it was shown large. */
  takeBack() {
    this.frame.replaceChildren(this.player.root);
    this.player.resume();
  }

  /** Shows what the API says. */
  update(report) {
    const before = this.report;
    this.report = report;
    const { state } = report;
    if (before && before.state !== state) announce(`${this.name} is ${words(state)}${report.reason ? `: ${report.reason}` : ""}`);
    showState(this.pill, state, report.since);
    showReason(this.reason, report);
    const away = ["offline", "starting", "waiting_for_keyframe"].includes(state);
    this.numbers.hidden = away;
    setText(this.numbers, [...numbers(report), this.player.transport].join(" · "));
    this.player.rate = report.fps;
    setText(this.player.placeholder, placeholder(state, true));
  }

  /** The service does not answer: what it said last may no longer be so. */
  forget() {
    showState(this.pill, "unknown");
    this.reason.hidden = true;
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

/** Rate, delay and size, as far as known. */
export function numbers({ fps, latency_ms: latency, width, height }) {
  return [`${fps.toFixed(1)} fps`, latency === null ? "" : `${latency.toFixed(0)} ms`, width === null ? "" : `${width}×${height}`].filter(Boolean);
}

/** Cards for these streams, in this order. */
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

/** Names as they are shown. */
export const order = () => [...list.children].map((root) => root.dataset.stream);

export function whenVisible(action) {
  onVisible = action;
}

/* ---- Keys ---- */

/** Left and right go to the neighbours, up and down to the card that lies there. */
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

/** Moves the focus among the cards; true when the key was one for that. */
export function onKey(event) {
  if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return false;
  const here = document.activeElement?.closest(".card");
  // From the head of the page, and from nowhere, they lead to the first card.
  const inside = document.activeElement?.closest("main");
  if (!here && inside && document.activeElement !== inside) return false;
  const next = here ? neighbour(here, event.key) : list.firstElementChild;
  if (!next) return Boolean(here);
  next.querySelector(".open").focus();
  next.scrollIntoView({ block: "nearest" });
  return true;
}
