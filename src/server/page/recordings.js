/* What was recorded of a stream: played here, saved, deleted. */
import { getJson, ofStream, remove } from "./api.js";
import { byId, complain, confirmed, icon, make, openDialog, setText } from "./dom.js";
import { session } from "./session.js";
import { bytes, clock } from "./words.js";

const REFRESH_MS = 10_000;
const PAGE = 50;

let name = null;
let entries = [];
let limit = PAGE;
let timer = null;

/** Shows the recordings of this stream; null when none is shown. */
export function open(stream) {
  [name, entries, limit] = [stream, [], PAGE];
  clearTimeout(timer);
  byId("recordings").hidden = true;
  byId("recordings-list").replaceChildren();
  if (name !== null) refresh();
}

async function refresh() {
  clearTimeout(timer);
  const asked = name;
  let problem = "";
  try {
    const answer = await getJson(ofStream(asked, "/recordings"));
    if (asked !== name) return;
    if (JSON.stringify(answer) !== JSON.stringify(entries) || byId("recordings").hidden) {
      entries = answer;
      show();
    }
    byId("recordings").hidden = false;
  } catch (error) {
    if (asked !== name) return;
    // A stream that is not recorded, or a service that does not list recordings: there is nothing to say.
    if (error.isMissing) {
      byId("recordings").hidden = true;
      return;
    }
    problem = `The list cannot be had: ${error.message}`;
  }
  const hint = problem || (entries.length === 0 ? "Nothing has been recorded yet." : "");
  byId("recordings-hint").hidden = hint === "";
  setText(byId("recordings-hint"), hint);
  if (name !== null) timer = setTimeout(whenSeen, REFRESH_MS);
}

function whenSeen() {
  if (document.visibilityState === "visible") refresh();
  else timer = setTimeout(whenSeen, REFRESH_MS);
}

/* ---- The list ---- */

function show() {
  const events = entries.filter((entry) => entry.event);
  byId("events-only-row").hidden = events.length === 0;
  const chosen = byId("events-only").checked && events.length > 0 ? events : entries;
  const size = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  setText(byId("recordings-sum"), entries.length ? `${entries.length} · ${bytes(size)}` : "");
  // A list that is built anew must not take the focus away.
  const focused = document.activeElement?.dataset.key;
  const groups = Map.groupBy ? Map.groupBy(chosen.slice(0, limit), day) : byDay(chosen.slice(0, limit));
  byId("recordings-list").replaceChildren(...[...groups].flatMap(([title, group]) => [
    make("h4", { className: "day" }, title),
    make("ul", { className: "rows" }, ...group.map(row)),
  ]));
  byId("recordings-more").hidden = chosen.length <= limit;
  if (focused) [...byId("recordings-list").querySelectorAll("button")].find((button) => button.dataset.key === focused)?.focus();
}

const day = (entry) => new Date(entry.start).toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long" });

function byDay(list) {
  const groups = new Map();
  for (const entry of list) groups.set(day(entry), [...(groups.get(day(entry)) ?? []), entry]);
  return groups;
}

/** What an event is, in words. */
function eventText(event) {
  if (typeof event === "string") return event;
  const classes = [event.classes ?? event.class ?? event.name ?? "event"].flat();
  return classes.join(", ");
}

function row(entry) {
  const at = new Date(entry.start).toLocaleTimeString();
  const play = make("button", { type: "button", className: "row-play", dataset: { key: `play ${entry.name}` } },
    icon("play"), make("span", { className: "row-time" }, at));
  play.setAttribute("aria-label", `Play the recording of ${at}`);
  play.addEventListener("click", () => playRecording(entry));
  const save = make("a", { className: "button quiet square", href: entry.url, download: entry.name, title: "Download" }, icon("save"));
  save.setAttribute("aria-label", `Download the recording of ${at}`);
  const length = entry.seconds === null || entry.seconds === undefined ? "–" : clock(entry.seconds);
  const parts = [play, make("span", { className: "row-length" }, length), make("span", { className: "row-size" }, bytes(entry.bytes))];
  const badges = make("span", { className: "row-badges" });
  if (!entry.complete) badges.append(make("span", { className: "badge on" }, "recording"));
  if (entry.event) badges.append(make("span", { className: "badge event" }, eventText(entry.event)));
  parts.push(badges, save);
  if (session.mayOperate()) {
    const bin = make("button", { type: "button", className: "button quiet square", title: "Delete", disabled: !entry.complete, dataset: { key: `bin ${entry.name}` } }, icon("bin"));
    bin.setAttribute("aria-label", `Delete the recording of ${at}`);
    bin.addEventListener("click", () => deleteRecording(entry, at));
    parts.push(bin);
  }
  return make("li", { className: "row" }, ...parts);
}

byId("recordings-more").addEventListener("click", () => {
  limit += PAGE;
  show();
});
byId("events-only").addEventListener("change", () => {
  limit = PAGE;
  show();
});
session.addEventListener("change", () => {
  if (name !== null && session.state === "open") {
    show();
    refresh();
  }
});

async function deleteRecording(entry, at) {
  const text = `${entry.name}, ${bytes(entry.bytes)}. It cannot be brought back.`;
  if (!(await confirmed(`Delete the recording of ${at}?`, text, "Delete"))) return;
  try {
    await remove(ofStream(name, `/recordings/${encodeURIComponent(entry.name)}`));
  } catch (error) {
    complain(`${entry.name} was not deleted: ${error.message}`);
  }
  if (name !== null) refresh();
}

/* ---- Playing ---- */

const dialog = byId("player");
const video = byId("player-video");

/** An event tells the page, so that nothing else is played meanwhile. */
export const playing = new EventTarget();
export const isPlaying = () => dialog.open;

function playRecording(entry) {
  const start = new Date(entry.start);
  setText(byId("player-title"), `${name}, ${start.toLocaleString()}`);
  byId("player-error").hidden = true;
  video.src = entry.url;
  openDialog(dialog);
  video.focus();
  video.play().catch(() => {});
  playing.dispatchEvent(new Event("change"));
}

video.addEventListener("error", () => {
  if (!video.hasAttribute("src")) return;
  byId("player-error").hidden = false;
  setText(byId("player-error"), "This recording cannot be played here; try to download it.");
});

dialog.addEventListener("close", () => {
  video.removeAttribute("src");
  video.load();
  playing.dispatchEvent(new Event("change"));
});
