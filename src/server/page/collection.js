/*
 * The collection of a stream: the frames that were collected for training, their review, and the editor of one of them. The address
 * `#/NAME/collection` is the gallery, `#/NAME/collection/ID` the editor.
 */
import { STATES, hasClass, loadClasses, loadCollection, ofFrame, reasonOf, setState } from "./collection-data.js";
import { announce, byId, complain, confirmed, make, setText } from "./dom.js";
import * as frameEditor from "./frame-editor.js";
import { framesWithDrafts } from "./label-drafts.js";
import { bytes, moment } from "./words.js";

const REFRESH_MS = 30_000;
/** Tiles that are added at once. */
const PAGE = 60;

/** The stream whose collection is shown; null for none. */
let name = null;
/** The frame that is edited; null in the gallery. */
let edited = null;
/** The last response; null before the first one. */
let collection = null;
let drafts = new Set();
let selected = new Set();
let count = PAGE;
let timer = null;
/** Whether labels are being read for the filter by class. */
let isReading = false;

export const current = () => name;

const address = (id) => `#/${encodeURIComponent(name)}/collection${id ? `/${id}` : ""}`;

/** Shows the collection of a stream, or the editor of one of its frames. */
export function open(stream, id) {
  if (stream !== name) {
    [name, collection, drafts, selected, count] = [stream, null, new Set(), new Set(), PAGE];
    byId("frames").replaceChildren();
    byId("collection-back").href = `#/${encodeURIComponent(stream)}`;
    setText(byId("collection-title"), `${stream}: collection`);
  }
  const before = edited;
  edited = id ?? null;
  byId("gallery").hidden = edited !== null;
  byId("frame-editor").hidden = edited === null;
  byId("label-back").href = address(null);
  if (edited === null) {
    frameEditor.close();
    refresh().then(() => before && tile(before)?.querySelector("a")?.focus());
  } else {
    byId("label-error").hidden = true;
    showFrame();
  }
}

export function close() {
  if (name === null) return;
  frameEditor.close();
  clearTimeout(timer);
  [name, edited, collection] = [null, null, null];
}

/* ---- Loading ---- */

async function refresh() {
  clearTimeout(timer);
  const stream = name;
  try {
    const [next, kept] = await Promise.all([loadCollection(stream), framesWithDrafts(stream).catch(() => new Set())]);
    if (stream !== name) return;
    [collection, drafts] = [next, kept];
    setHint("");
  } catch (error) {
    if (stream !== name) return;
    setHint(`The collection cannot be shown: ${error.message}`);
  }
  showGallery();
  if (edited !== null) return;
  timer = setTimeout(whenSeen, REFRESH_MS);
  readClasses();
}

function whenSeen() {
  if (document.visibilityState === "visible" && edited === null) refresh();
  else timer = setTimeout(whenSeen, 1000);
}

function setHint(text) {
  byId("collection-hint").hidden = text === "";
  setText(byId("collection-hint"), text);
}

/* ---- Gallery ---- */

const chosen = (filter) => document.querySelector(`input[name=frames-${filter}]:checked`)?.value ?? byId(`frames-${filter}`)?.value;

const IS_SHOWN = {
  review: ({ state }) => state === "new" || state === "later",
  all: ({ state }) => state !== "discarded",
};

function filtered() {
  const [state, reason, entry] = [chosen("state"), byId("frames-reason").value, byId("frames-class").value];
  const hasState = IS_SHOWN[state] ?? ((record) => record.state === state);
  return (collection?.frames ?? []).filter((record) => hasState(record) && (reason === "" || record.reason === reason) &&
    (entry === "" || hasClass(name, record, Number(entry))));
}

/** Reads the labels of the frames whose classes are not known, one after the other, while a class is filtered by. */
async function readClasses() {
  const stream = name;
  const entry = () => byId("frames-class").value;
  const open = () => collection?.frames.filter((record) => record.state !== "discarded" && hasClass(stream, record, 0) === undefined) ?? [];
  if (isReading || entry() === "") return;
  isReading = true;
  for (let left = open(); left.length > 0 && stream === name && edited === null && entry() !== ""; left = open()) {
    setHint(`Reading the labels: ${left.length} to do`);
    try {
      await loadClasses(stream, left[0]);
    } catch (error) {
      isReading = false;
      setHint(`The labels cannot be read: ${error.message}`);
      return;
    }
    showGallery();
  }
  isReading = false;
  setHint("");
}

const tile = (id) => byId("frames").querySelector(`[data-frame="${CSS.escape(id)}"]`);
const recordOf = (id) => collection?.frames.find((record) => record.id === id);

function showProgress() {
  const number = (...states) => collection.frames.filter(({ state }) => states.includes(state)).length;
  const [accepted, waiting] = [number("accepted"), number("new", "later")];
  byId("frames-progress").max = Math.max(1, accepted + waiting);
  byId("frames-progress").value = accepted;
  const size = collection.bytes === undefined ? "" : ` · ${bytes(collection.bytes)} on disk`;
  setText(byId("frames-count"), `${accepted} of ${accepted + waiting} accepted, ${waiting} to review${size}`);
}

function showClassFilter() {
  const select = byId("frames-class");
  const key = JSON.stringify(collection.classes);
  if (select.dataset.key === key) return;
  select.dataset.key = key;
  const before = select.value;
  select.replaceChildren(make("option", { value: "" }, "All classes"), ...collection.classes.map((entry, at) => make("option", { value: String(at) }, entry.name)));
  select.value = before;
}

/** Rebuilds the tiles that differ; the others keep their elements, and so the focus. */
function showGallery() {
  if (!collection) return;
  showProgress();
  showClassFilter();
  const list = filtered();
  selected = new Set([...selected].filter((id) => list.some((record) => record.id === id)));
  const tiles = list.slice(0, count).map((record) => {
    const key = JSON.stringify([record.state, record.revision, drafts.has(record.id)]);
    const known = tile(record.id);
    if (known?.dataset.key === key) return known;
    const made = tileOf(record);
    made.dataset.key = key;
    return made;
  });
  const focused = document.activeElement?.closest?.("#frames [data-frame]")?.dataset.frame;
  const box = byId("frames");
  for (const child of [...box.children]) if (!tiles.includes(child)) child.remove();
  tiles.forEach((child, at) => {
    if (box.children[at] !== child) box.insertBefore(child, box.children[at] ?? null);
  });
  if (focused && !box.contains(document.activeElement)) tile(focused)?.querySelector("a").focus({ preventScroll: true });
  byId("frames-more").hidden = list.length <= count;
  byId("frames-none").hidden = list.length > 0;
  setText(byId("frames-none"), collection.frames.length === 0 ? "No frames have been collected yet." : "No frame matches these filters.");
  byId("next-steps").hidden = !collection.frames.some(({ state }) => state === "accepted");
  if (collection.folder) setText(byId("next-folder"), collection.folder);
  showSelection();
}

function tileOf(record) {
  const { id } = record;
  const time = moment(record.captured);
  const label = `Frame of ${time}, ${reasonOf(record)}, ${STATES[record.state]}`;
  const hasPictures = record.state !== "discarded";
  const picture = hasPictures
    ? make("img", { src: ofFrame(name, id, "image.jpg"), alt: "", loading: "lazy", decoding: "async", width: record.width, height: record.height })
    : make("span", { className: "frame-gone" }, "discarded");
  const check = make("input", { type: "checkbox", className: "frame-check", checked: selected.has(id), "aria-label": `Select: ${label}` });
  check.addEventListener("change", () => toggle(id));
  const badges = [make("span", { className: "pill", dataset: { state: record.state } }, STATES[record.state])];
  if (record.revision > 0) badges.push(make("span", { className: "badge cut" }, "corrected"));
  if (drafts.has(id)) badges.push(make("span", { className: "badge event", title: "This browser keeps changes that the service does not have. Open the frame to save them." }, "not saved"));
  const button = (state, text) => {
    const made = make("button", { type: "button", className: "button", disabled: !hasPictures || record.state === state, "aria-label": `${text}: ${label}` }, text);
    made.addEventListener("click", () => decide([id], state));
    return made;
  };
  return make("li", { className: "frame-tile", dataset: { frame: id } },
    make("a", { href: address(id), className: "frame-link", "aria-label": label, tabIndex: hasPictures ? 0 : -1 }, picture),
    check,
    make("p", { className: "frame-line" }, make("span", {}, reasonOf(record)), make("span", { className: "quiet-text" }, time)),
    make("p", { className: "frame-badges" }, ...badges),
    make("p", { className: "frame-actions" }, button("accepted", "Accept"), button("later", "Later"), button("discarded", "Discard")));
}

function toggle(id) {
  if (!selected.delete(id)) selected.add(id);
  const check = tile(id)?.querySelector(".frame-check");
  if (check) check.checked = selected.has(id);
  showSelection();
}

function showSelection() {
  byId("frames-bulk").hidden = filtered().length === 0;
  setText(byId("frames-selected"), selected.size === 0 ? "None selected" : `${selected.size} selected`);
  for (const button of byId("frames-bulk").querySelectorAll("[data-bulk]")) button.disabled = selected.size === 0;
  setText(byId("frames-all"), selected.size === 0 ? "Select all" : "Select none");
}

/* ---- Decisions ---- */

/** Asks before pictures are deleted. */
const mayDiscard = (number) => confirmed(number === 1 ? "Discard this frame?" : `Discard ${number} frames?`,
  "The picture and its label are deleted, and a similar frame is not collected again for 30 days.", "Discard");

/** Sets the state of frames. Returns whether it was set for all. */
async function decide(ids, state) {
  if (state === "discarded" && !(await mayDiscard(ids.length))) return false;
  const stream = name;
  const failed = [];
  for (const id of ids) {
    const record = recordOf(id);
    if (!record || record.state === state) continue;
    try {
      const next = await setState(stream, record, state);
      if (stream === name) replaceRecord(next);
      selected.delete(id);
    } catch (error) {
      failed.push(error.message);
    }
  }
  if (failed.length > 0) {
    complain(`${stream}: ${failed.length} of ${ids.length} frames were not changed: ${failed[0]}`);
    if (stream === name) await refresh();
  } else {
    announce(ids.length === 1 ? `Frame ${STATES[state]}` : `${ids.length} frames ${STATES[state]}`);
  }
  const index = [...byId("frames").children].findIndex((child) => child.contains(document.activeElement));
  showGallery();
  if (index >= 0 && document.activeElement === document.body) (byId("frames").children[Math.min(index, byId("frames").children.length - 1)] ?? byId("collection-title")).querySelector?.("a")?.focus();
  return failed.length === 0;
}

function replaceRecord(next) {
  if (!collection) return;
  collection.frames = collection.frames.map((record) => (record.id === next.id ? { ...record, ...next } : record));
}

/* ---- The editor ---- */

async function showFrame() {
  const [stream, id] = [name, edited];
  clearTimeout(timer);
  if (!collection || !recordOf(id)) await refresh();
  if (stream !== name || id !== edited) return;
  try {
    const record = recordOf(id);
    if (!collection) throw new Error(byId("collection-hint").textContent);
    if (!record) throw new Error(`the collection has no frame ${id}`);
    if (record.state === "discarded") throw new Error("it was discarded, and its picture is deleted");
    showSteps();
    await frameEditor.open(stream, record, collection.classes);
  } catch (error) {
    if (stream !== name || id !== edited) return;
    setText(byId("label-error"), `This frame cannot be edited: ${error.message}`);
    byId("label-error").hidden = false;
  }
}

/** The frames before and after the edited one that wait for a review. */
function neighbours() {
  const list = (collection?.frames ?? []).filter((record) => record.id === edited || record.state !== "discarded");
  const at = list.findIndex((record) => record.id === edited);
  return { before: list[at - 1], after: list[at + 1], waiting: [...list.slice(at + 1), ...list.slice(0, Math.max(0, at))].find(({ state }) => state === "new") };
}

function showSteps() {
  const { before, after } = neighbours();
  for (const [id, record] of [["label-previous", before], ["label-next", after]]) {
    if (record) byId(id).href = address(record.id);
    else byId(id).removeAttribute("href");
    byId(id).ariaDisabled = String(!record);
  }
  const record = recordOf(edited);
  for (const button of document.querySelectorAll("#label-decisions [data-state]")) button.ariaPressed = String(record?.state === button.dataset.state);
}

/** Saves the edited frame, sets its state, and shows the next one to review. */
async function finish(state) {
  if (!frameEditor.isOpen()) return;
  const [stream, id] = [name, edited];
  try {
    if (state !== "discarded") replaceRecord(await frameEditor.saved());
  } catch (error) {
    complain(`${stream}: the frame was not ${STATES[state]}: ${error.message}`);
    return;
  }
  if (!(await decide([id], state)) || stream !== name || id !== edited) return;
  const { waiting } = neighbours();
  window.location.hash = address(waiting?.id ?? null);
}

/* ---- Keys ---- */

/** Columns of the gallery as it is laid out. */
function columns() {
  const tiles = [...byId("frames").children];
  const top = tiles[0]?.offsetTop;
  const more = tiles.findIndex((child) => child.offsetTop !== top);
  return more < 0 ? tiles.length : more;
}

const DECISIONS = { a: "accepted", l: "later", x: "discarded" };

function onGalleryKey(event) {
  const focused = document.activeElement?.closest?.("#frames [data-frame]");
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[event.key];
  if (step !== undefined) {
    const tiles = [...byId("frames").children];
    const at = focused ? tiles.indexOf(focused) + step : 0;
    tiles[at]?.querySelector("a").focus();
    return tiles.length > 0;
  }
  const isLink = document.activeElement?.classList.contains("frame-link");
  const state = DECISIONS[event.key.toLowerCase()];
  if (isLink && event.key === " ") toggle(focused.dataset.frame);
  else if (state && selected.size > 0) decide([...selected], state);
  else if (state && focused) decide([focused.dataset.frame], state);
  else if (event.key === "Escape") window.location.hash = byId("collection-back").getAttribute("href");
  else return false;
  return true;
}

function onEditorKey(event) {
  const state = DECISIONS[event.key.toLowerCase()];
  const link = { n: "label-next", PageDown: "label-next", PageUp: "label-previous" }[event.key];
  if (state && !event.shiftKey) finish(state);
  else if (link && byId(link).hasAttribute("href")) window.location.hash = byId(link).getAttribute("href");
  else if (event.key === "Escape") window.location.hash = address(null);
  else return false;
  return true;
}

/** Handles a key of this view. Returns whether it was handled. */
export const onKey = (event) => (edited === null ? onGalleryKey(event) : onEditorKey(event));

/* ---- Controls ---- */

for (const element of document.querySelectorAll("#frames-filters input, #frames-filters select")) {
  element.addEventListener("change", () => {
    count = PAGE;
    showGallery();
    readClasses();
  });
}
byId("frames-more").addEventListener("click", () => {
  count += PAGE;
  showGallery();
});
byId("frames-all").addEventListener("click", () => {
  selected = new Set(selected.size > 0 ? [] : filtered().filter(({ state }) => state !== "discarded").map(({ id }) => id));
  for (const check of byId("frames").querySelectorAll(".frame-check")) check.checked = selected.has(check.closest("[data-frame]").dataset.frame);
  showSelection();
});
for (const button of byId("frames-bulk").querySelectorAll("[data-bulk]")) button.addEventListener("click", () => decide([...selected], button.dataset.bulk));
for (const button of document.querySelectorAll("#label-decisions [data-state]")) button.addEventListener("click", () => finish(button.dataset.state));
frameEditor.whenSaved((record) => {
  replaceRecord(record);
  drafts.delete(record.id);
});
