/* The recordings of a stream: play, download, delete. */
import { getJson, ofStream, remove } from "./api.js";
import { byId, complain, confirmed, icon, make, openDialog, setText } from "./dom.js";
import { session } from "./session.js";
import { bytes, clock, timeOfDay } from "./words.js";

const REFRESH_MS = 10_000;
const PAGE = 50;

let name = null;
/** The recordings loaded so far, the newest first. */
let entries = [];
let hasMore = false;
let isLoaded = false;
let isRecorded = false;
let timer = null;

const path = (before) => ofStream(name, `/recordings?limit=${PAGE}${before ? `&before=${encodeURIComponent(before)}` : ""}`);

/** Shows the recordings of a stream; null hides them. */
export function open(stream) {
  [name, entries, hasMore, isLoaded, isRecorded] = [stream, [], false, false, false];
  clearTimeout(timer);
  byId("recordings").hidden = true;
  byId("recordings-list").replaceChildren();
  if (name !== null) refresh();
}

/** Sets whether the stream is recorded: only then an empty list is shown. */
export function setRecorded(now) {
  if (now === isRecorded) return;
  isRecorded = now;
  showSection();
}

async function refresh() {
  clearTimeout(timer);
  const asked = name;
  let problem = "";
  try {
    const newest = await getJson(path());
    if (asked !== name) return;
    // Older recordings that were loaded before stay in the list.
    const last = newest.at(-1)?.name;
    const behind = entries.findIndex((entry) => entry.name === last);
    const rest = behind < 0 ? [] : entries.slice(behind + 1);
    if (rest.length === 0) hasMore = newest.length === PAGE;
    const changed = JSON.stringify([...newest, ...rest]) !== JSON.stringify(entries);
    entries = [...newest, ...rest];
    isLoaded = true;
    if (changed) show();
  } catch (error) {
    if (asked !== name) return;
    // The service does not list recordings.
    if (error.isMissing) return;
    problem = `The recordings cannot be listed: ${error.message}`;
  }
  showSection(problem);
  timer = setTimeout(whenSeen, REFRESH_MS);
}

function showSection(problem = "") {
  const hint = problem || (entries.length === 0 ? "Nothing has been recorded yet." : "");
  byId("recordings").hidden = problem === "" && !(isLoaded && (entries.length > 0 || isRecorded));
  byId("recordings-hint").hidden = hint === "";
  setText(byId("recordings-hint"), hint);
}

function whenSeen() {
  if (document.visibilityState === "visible") refresh();
  else timer = setTimeout(whenSeen, REFRESH_MS);
}

async function more() {
  const asked = name;
  try {
    const older = await getJson(path(entries.at(-1).name));
    if (asked !== name) return;
    hasMore = older.length === PAGE;
    entries.push(...older);
    show();
  } catch (error) {
    complain(`The recordings cannot be listed: ${error.message}`);
  }
}

/* ---- The list ---- */

function show() {
  const events = entries.filter((entry) => entry.event);
  byId("events-only-row").hidden = events.length === 0;
  const chosen = byId("events-only").checked && events.length > 0 ? events : entries;
  const size = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  setText(byId("recordings-sum"), entries.length ? `${entries.length}${hasMore ? "+" : ""} · ${bytes(size)}` : "");
  // Rebuilding the list must not lose the focus.
  const focused = document.activeElement?.dataset.key;
  byId("recordings-list").replaceChildren(...[...byDay(chosen)].flatMap(([title, group]) => [
    make("h4", { className: "day" }, title),
    make("ul", { className: "rows" }, ...group.map(row)),
  ]));
  byId("recordings-more").hidden = !hasMore;
  if (focused) [...byId("recordings-list").querySelectorAll("button")].find((button) => button.dataset.key === focused)?.focus();
}

const day = (entry) => new Date(entry.start).toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long" });

function byDay(list) {
  const groups = new Map();
  for (const entry of list) groups.set(day(entry), [...(groups.get(day(entry)) ?? []), entry]);
  return groups;
}

function row(entry) {
  const at = timeOfDay(new Date(entry.start));
  const play = make("button", { type: "button", className: "row-play", dataset: { key: `play ${entry.name}` } },
    icon("play"), make("span", { className: "row-time" }, at));
  play.setAttribute("aria-label", `Play the recording of ${at}`);
  play.addEventListener("click", () => playRecording(entry));
  const save = make("a", { className: "button quiet square", href: entry.url, download: entry.name, title: "Download" }, icon("save"));
  save.setAttribute("aria-label", `Download the recording of ${at}`);
  const parts = [play, make("span", { className: "row-length" }, clock(entry.seconds)), make("span", { className: "row-size" }, bytes(entry.bytes))];
  const badges = make("span", { className: "row-badges" });
  // Only the newest recording can be open for writing.
  const isOpen = !entry.complete && entry === entries[0];
  if (isOpen) badges.append(make("span", { className: "badge on" }, "recording"));
  else if (!entry.complete) badges.append(make("span", { className: "badge cut" }, "incomplete"));
  if (entry.event) badges.append(make("span", { className: "badge event" }, entry.event));
  parts.push(badges, save);
  if (session.mayOperate()) {
    const bin = make("button", { type: "button", className: "button quiet square", title: "Delete", disabled: isOpen, dataset: { key: `bin ${entry.name}` } }, icon("bin"));
    bin.setAttribute("aria-label", `Delete the recording of ${at}`);
    bin.addEventListener("click", () => deleteRecording(entry, at));
    parts.push(bin);
  }
  return make("li", { className: "row" }, ...parts);
}

byId("recordings-more").addEventListener("click", more);
byId("events-only").addEventListener("change", show);
session.addEventListener("change", () => {
  if (name !== null && session.state === "open") {
    show();
    refresh();
  }
});

async function deleteRecording(entry, at) {
  const text = `${entry.name}, ${bytes(entry.bytes)}. This cannot be undone.`;
  if (!(await confirmed(`Delete the recording of ${at}?`, text, "Delete"))) return;
  try {
    await remove(ofStream(name, `/recordings/${encodeURIComponent(entry.name)}`));
    entries = entries.filter((other) => other !== entry);
    show();
  } catch (error) {
    complain(`${entry.name}: the recording was not deleted: ${error.message}`);
  }
  if (name !== null) refresh();
}

/* ---- Playback ---- */

const dialog = byId("player");
const video = byId("player-video");

/** Dispatches the event "change" when playback starts or ends, so that the page can pause the live video. */
export const playing = new EventTarget();
export const isPlaying = () => dialog.open;

function playRecording(entry) {
  playFile(`${name}, ${new Date(entry.start).toLocaleString()}`, entry.url);
}

/** Second at which the open recording begins to play. */
let offset = 0;

/** Plays a recording from this second on. */
export function playFile(title, url, from = 0) {
  setText(byId("player-title"), title);
  byId("player-error").hidden = true;
  offset = from;
  video.src = url;
  openDialog(dialog);
  video.focus();
  video.play().catch(() => {});
  playing.dispatchEvent(new Event("change"));
}

video.addEventListener("loadedmetadata", () => {
  if (offset > 0) video.currentTime = offset;
  offset = 0;
});

video.addEventListener("error", () => {
  if (!video.hasAttribute("src")) return;
  byId("player-error").hidden = false;
  setText(byId("player-error"), "The browser cannot play this recording. Download it instead.");
});

dialog.addEventListener("close", () => {
  video.removeAttribute("src");
  video.load();
  playing.dispatchEvent(new Event("change"));
});
