/*
 * The events of the stream in the large view: a timeline, and a list with snapshots. A click plays the recording at the start
 * of the event.
 */
import { getJson } from "./api.js";
import { RANGES, rangeChoice } from "./axis.js";
import { byId, complain, icon, make, setText } from "./dom.js";
import { Live } from "./live.js";
import { playFile } from "./recordings.js";
import { Timeline } from "./timeline.js";
import { clock, HISTORY_OFF, moment, percent } from "./words.js";

const PAGE = 100;
/** At most so many pages are loaded by themselves, for the timeline. */
const PAGES = 5;
/** The list shows so many events, and as many more with each click. */
const ROWS = 12;
const REFRESH_MS = 30_000;
/** Without a new event, the timeline moves after this time. */
const REDRAW_MS = 10_000;
/** After a message, snapshots are stored within this time. */
const SNAPSHOT_MS = 2000;

let name = null;
/** The events of the range, by id. */
let events = new Map();
let hasMore = false;
let rows = ROWS;
let length = RANGES.hour;
/** Why the history is not shown; empty while it is. */
let problem = "";
let isLoaded = false;
/** Whether the service has a history. */
let isStored = true;
/** Events of the rules in the last report: another number or event means that there is something new. */
let counted = "";
let rules = [];
/** Ids of the events in the last report. */
let active = [];
let drawnAt = -Infinity;
let timer = null;

const timeline = new Timeline(openEvent);
const live = new Live("event", (message) => {
  const { phase, ...event } = message;
  keep(event);
  show();
  later(SNAPSHOT_MS);
});

/** Shows the events of a stream; null hides them. */
export function open(stream) {
  [name, events, hasMore, rows, problem, isLoaded, counted, rules, active] = [stream, new Map(), false, ROWS, "", false, "", [], []];
  clearTimeout(timer);
  byId("events-list").replaceChildren();
  byId("events-list").dataset.key = "";
  live.open(stream === null ? null : `/api/v1/events/live?stream=${encodeURIComponent(stream)}`);
  show();
  if (stream !== null) refresh();
}

/** Sets whether the service has a history. Without one, only events that are seen on this page are shown. */
export function setHistory(now) {
  if (now === isStored) return;
  isStored = now;
  if (name !== null) refresh();
}

/** Takes the rules from a report of the stream, and their events that last. */
export function update(report) {
  const states = report.rules ?? [];
  rules = states.map((state) => state.name);
  for (const state of states) if (state.event) keep(state.event);
  const lasting = new Set(states.map((state) => state.event?.id));
  // The message about its end may be missed. The history has the exact time.
  for (const id of active) if (!lasting.has(id) && !events.get(id)?.end) keep({ ...events.get(id), end: new Date().toISOString() });
  active = states.flatMap((state) => (state.event ? [state.event.id] : []));
  const now = JSON.stringify(states.map((state) => [state.name, state.events, state.event?.id]));
  if (counted !== "" && now !== counted) later(SNAPSHOT_MS);
  counted = now;
  show();
}

/** Adds an event, or what is new about it. Snapshots and recording stay. */
function keep(event) {
  const old = events.get(event.id);
  // A report may be older than a message about the end.
  if (old?.end && !event.end) return;
  events.set(event.id, { ...old, ...event });
}

/* ---- Loading ---- */

function later(delay) {
  clearTimeout(timer);
  timer = setTimeout(() => (document.visibilityState === "visible" ? refresh() : later(delay)), delay);
}

function path(before) {
  const from = new Date(Date.now() - length).toISOString();
  const rest = before ? `&before=${encodeURIComponent(before)}` : "";
  return `/api/v1/events?stream=${encodeURIComponent(name)}&from=${encodeURIComponent(from)}&limit=${PAGE}${rest}`;
}

/** Loads the events of the range, the newest first. */
async function refresh() {
  if (!isStored) {
    problem = HISTORY_OFF;
    show();
    return;
  }
  const [asked, range] = [name, length];
  const isNow = () => asked === name && range === length;
  try {
    const found = [];
    const isFirst = !isLoaded;
    let isFull = false;
    for (let page = 0; page < PAGES; page += 1) {
      const next = await getJson(path(found.at(-1)?.id));
      if (!isNow()) return;
      found.push(...next);
      isFull = next.length === PAGE;
      // An event that is known already was loaded with those behind it.
      if (!isFull || (!isFirst && events.has(next.at(-1).id))) break;
    }
    if (isFirst) hasMore = isFull;
    for (const event of found) events.set(event.id, event);
    [problem, isLoaded] = ["", true];
  } catch (error) {
    if (!isNow()) return;
    problem = `The events cannot be listed: ${error.message}`;
  }
  show();
  later(REFRESH_MS);
}

async function more() {
  if (rows < shown().length) {
    rows += ROWS;
    show();
    return;
  }
  const asked = name;
  try {
    const older = await getJson(path(shown().at(-1)?.id));
    if (asked !== name) return;
    for (const event of older) events.set(event.id, event);
    hasMore = older.length === PAGE;
    rows += ROWS;
    show();
  } catch (error) {
    complain(`The events cannot be listed: ${error.message}`);
  }
}

/* ---- Display ---- */

/** The events that overlap the range, the newest first. */
function shown() {
  const from = Date.now() - length;
  const list = [...events.values()].filter((event) => !event.end || new Date(event.end) >= from);
  return list.sort((a, b) => (a.start < b.start ? 1 : a.start > b.start ? -1 : a.id < b.id ? 1 : -1));
}

function drawTimeline(list) {
  const key = JSON.stringify([list.map((event) => [event.id, event.end]), length, rules]);
  if (key === timeline.root.dataset.key && performance.now() - drawnAt < REDRAW_MS) return;
  timeline.root.dataset.key = key;
  drawnAt = performance.now();
  timeline.root.hidden = list.length === 0 && rules.length === 0;
  const to = Date.now();
  timeline.show(list, { from: to - length, to, rules });
}

function show() {
  const list = shown();
  byId("events").hidden = name === null || (rules.length === 0 && list.length === 0 && !isLoaded);
  if (byId("events").hidden) return;
  drawTimeline(list);
  const hint = problem || (list.length === 0 && isLoaded ? "No events in this time." : "");
  byId("events-hint").hidden = hint === "";
  setText(byId("events-hint"), hint);
  setText(byId("events-sum"), list.length > 0 ? `${list.length}${hasMore ? "+" : ""}` : "");
  byId("events-more").hidden = list.length <= rows && !hasMore;
  const visible = list.slice(0, rows);
  const entries = byId("events-list");
  // Rebuilding the list must not lose the focus.
  const key = JSON.stringify(visible.map((event) => ({ ...event, share: null })));
  if (entries.dataset.key === key) return;
  entries.dataset.key = key;
  const focused = document.activeElement?.closest?.("#events-list li")?.dataset.event;
  const kind = document.activeElement?.className;
  entries.replaceChildren(...visible.map(row));
  if (focused) [...entries.querySelectorAll(`[data-event="${CSS.escape(focused)}"] :is(a, button)`)].find((element) => element.className === kind)?.focus({ preventScroll: true });
}

const REASONS = { unknown: "no masks", removed: "rule changed", restart: "service restarted" };

/** How long it lasted. Events of `entered` and `left` have no duration. */
function lasted(event) {
  if (!event.end) return "";
  const seconds = (new Date(event.end) - new Date(event.start)) / 1000;
  return seconds === 0 ? "" : seconds < 10 ? `${seconds.toFixed(1)} s` : clock(seconds);
}

function row(event) {
  const at = moment(event.start);
  const pictures = make("span", { className: "event-pictures" });
  for (const [kind, text] of [["start", "Start"], ["peak", "Peak"]]) {
    const url = event.snapshots?.[kind];
    if (!url) continue;
    const picture = make("img", { src: url, alt: `${text} of ${event.rule}, ${at}`, loading: "lazy", width: 128, height: 72 });
    pictures.append(make("a", { href: url, target: "_blank", rel: "noopener", className: `picture-${kind}`, title: text }, picture));
  }
  const where = event.zone ?? "the frame";
  const parts = [make("b", {}, event.rule), make("span", { className: "quiet-text" }, ` in ${where}`)];
  const facts = [at, lasted(event), `peak ${percent(event.peak_share)}`].filter(Boolean).join(" · ");
  const badges = make("span", { className: "row-badges" });
  if (!event.end) badges.append(make("span", { className: "badge on" }, "now"));
  else if (REASONS[event.end_reason]) badges.append(make("span", { className: "badge cut" }, REASONS[event.end_reason]));
  const text = make("div", { className: "event-text" }, make("p", {}, ...parts), make("p", { className: "quiet-text" }, facts), badges);
  const entry = make("li", { className: "event", dataset: { event: event.id } }, pictures, text);
  if (event.recording) {
    const play = make("button", { type: "button", className: "button event-play", "aria-label": `Play the recording of ${event.rule}, ${at}` }, icon("play"), "Play");
    play.addEventListener("click", () => openEvent(event));
    entry.append(play);
  }
  return entry;
}

/** Plays the recording of an event at its start; without one, shows the event in the list. */
function openEvent({ id, rule, start, recording }) {
  if (recording) {
    playFile(`${name}: ${rule}, ${new Date(start).toLocaleString()}`, recording.url, recording.offset_s);
    return;
  }
  const at = shown().findIndex((event) => event.id === id);
  rows = Math.max(rows, at + 1);
  show();
  const entry = byId("events-list").querySelector(`[data-event="${CSS.escape(id)}"]`);
  entry?.scrollIntoView({ block: "nearest" });
  entry?.classList.add("found");
  setTimeout(() => entry?.classList.remove("found"), 1500);
}

byId("events-range").replaceChildren(rangeChoice("events-range", (chosen) => {
  [length, events, isLoaded, hasMore, rows] = [chosen, new Map(), false, false, ROWS];
  show();
  refresh();
}));
byId("events-timeline").append(timeline.root);
byId("events-more").addEventListener("click", more);
