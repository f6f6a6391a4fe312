/* The editor of one collected frame: its buttons, what it loads, and how its label is saved. */
import { loadFile, ofFrame, paletteOf, reasonOf } from "./collection-data.js";
import { announce, byId, complain, make, setText } from "./dom.js";
import { askConflict } from "./label-conflict.js";
import { draftsOf, forget } from "./label-drafts.js";
import { LabelEditor, TOOLS } from "./label-editor.js";
import { VOID, countDifferent } from "./label-mask.js";
import { decodeLabel } from "./label-png.js";
import { LabelSaver, revisionOf } from "./label-saver.js";
import { moment } from "./words.js";

const canvas = byId("label-canvas");
const editor = new LabelEditor(canvas);

/** The frame that is shown: `{stream, record, classes, image, saver}`; null without one. */
let shown = null;
/** Changes whenever a frame is opened or closed. */
let visit = {};
/** The label that somebody else has saved; null without a conflict. */
let other = null;
/** Savers of frames that are not shown any more, by stream and id. */
const leaving = new Map();
let onRecord = () => {};

const keyOf = (stream, id) => `${stream}/${id}`;

/** Sets the function that is called with the record of a saved frame. */
export function whenSaved(action) {
  onRecord = action;
}

export const isOpen = () => shown !== null;

/* ---- Opening ---- */

/** Shows a frame of a stream. `classes` are those of the collection. Throws when it cannot be loaded. */
export async function open(stream, record, classes) {
  close();
  const begun = (visit = {});
  const { id } = record;
  setText(byId("label-title"), `${moment(record.captured)} · ${reasonOf(record)}`);
  showStatus("loading", "Loading…");
  leaving.get(keyOf(stream, id))?.close();
  leaving.delete(keyOf(stream, id));
  const [picture, labelled, proposed, drafts] = await Promise.all([
    loadFile(stream, id, "image.jpg").then((response) => response.blob()).then((blob) => createImageBitmap(blob)),
    loadFile(stream, id, "label.png").then(async (response) => ({ ...(await decodeLabel(await response.arrayBuffer())), revision: revisionOf(response) })),
    loadFile(stream, id, "proposal.png").then((response) => response.arrayBuffer()).then(decodeLabel),
    draftsOf(stream, id).catch(() => []),
  ]);
  if (begun !== visit) {
    picture.close();
    return;
  }
  const { width, height, revision } = labelled;
  if (proposed.width !== width || proposed.height !== height) throw new Error("label and proposal have different sizes");
  const draft = drafts.find(({ pixels }) => pixels.length === labelled.pixels.length && countDifferent(pixels, labelled.pixels) > 0);
  if (!draft && drafts.length > 0) forget(drafts.map(({ key }) => key)).catch(() => {});
  const { pixels } = labelled;
  editor.open({ image: picture, width, height, pixels, proposal: proposed.pixels, classes });
  const saver = new LabelSaver({
    path: ofFrame(stream, id, "label.png"), stream, id, width, height, palette: paletteOf(classes), pixels: () => pixels,
    // A draft of another revision leads to the question which one is kept.
    revision: draft?.revision ?? revision,
  });
  shown = { stream, record, classes, image: picture, saver };
  byId("frame-editor").dataset.frame = id;
  saver.addEventListener("state", () => onState(stream, id, saver));
  saver.addEventListener("conflict", ({ detail }) => onConflict(saver, detail));
  saver.addEventListener("record", ({ detail }) => {
    if (shown?.saver === saver) shown.record = detail;
    onRecord(detail);
  });
  showClasses();
  onState(stream, id, saver);
  if (draft) {
    editor.replace(draft.pixels);
    announce("Your changes that were not saved are restored");
  }
  canvas.focus({ preventScroll: true });
}

/** Ends the view of a frame. What is not saved is saved in the background, and stays in the browser until then. */
export function close() {
  visit = {};
  if (!shown) return;
  const { stream, record, saver } = shown;
  [shown, other] = [null, null];
  delete byId("frame-editor").dataset.frame;
  editor.close();
  if (byId("label-conflict").open) byId("label-conflict").close();
  if (saver.isSaved || saver.state === "conflict" || saver.state === "refused") {
    saver.close();
    return;
  }
  leaving.set(keyOf(stream, record.id), saver);
  saver.save();
}

/* ---- Saving ---- */

function onState(stream, id, saver) {
  if (shown?.saver === saver) {
    showStatus(saver.state, saver.text);
    return;
  }
  if (saver.state === "conflict" || saver.state === "refused") complain(`Frame ${id} of ${stream}: ${saver.text}. Open it to continue`);
  else if (saver.state !== "saved") return;
  saver.close();
  leaving.delete(keyOf(stream, id));
}

function showStatus(state, text) {
  byId("label-status").dataset.state = state;
  setText(byId("label-status-text"), text);
  byId("label-retry").hidden = state !== "waiting";
  byId("label-decide").hidden = state !== "conflict";
}

function onConflict(saver, detail) {
  if (shown?.saver !== saver) return;
  other = detail;
  decide();
}

async function decide() {
  if (!shown || !other) return;
  const { saver, image, classes } = shown;
  const { theirs, revision } = other;
  const choice = await askConflict({ image, mine: editor.pixels, theirs, classes });
  if (shown?.saver !== saver || other?.revision !== revision || choice === "later") return;
  other = null;
  if (choice === "mine") {
    await saver.keepMine(revision);
  } else {
    // As a change that can be undone, after which the own label is saved.
    editor.replace(theirs);
    await saver.takeTheirs(revision);
  }
}

/** Saves the frame. Resolves to its record; throws when it is not saved. */
export async function saved() {
  const { saver } = shown;
  if (!(await saver.save())) throw new Error(saver.text);
  return { ...shown.record, revision: saver.revision };
}

/* ---- Controls ---- */

/** The key that selects a class. */
function keyFor(index) {
  if (index < 9) return String(index + 1);
  return index < 35 ? `⇧${String.fromCharCode("A".charCodeAt(0) + index - 9)}` : "";
}

function classButton(value, name, color, key) {
  const swatch = make("span", { className: "swatch" });
  if (color === null) swatch.classList.add("void");
  else swatch.style.background = color;
  const button = make("button", { type: "button", className: "label-class", dataset: { value: String(value) } },
    swatch, make("span", { className: "label-class-name" }, name), ...(key ? [make("kbd", {}, key)] : []));
  button.addEventListener("click", () => {
    editor.setValue(value);
    canvas.focus({ preventScroll: true });
  });
  return make("li", {}, button);
}

function showClasses() {
  const list = shown.classes.map(({ name, color }, at) => classButton(at, name, color, keyFor(at)));
  byId("label-classes").replaceChildren(...list, classButton(VOID, "void (not used)", null, "0"));
  showState();
}

function showState() {
  for (const button of byId("label-tools").querySelectorAll("[data-tool]")) button.ariaPressed = String(button.dataset.tool === editor.tool);
  for (const button of byId("label-classes").querySelectorAll("button")) {
    button.ariaPressed = String(Number(button.dataset.value) === (editor.tool === "eraser" ? VOID : editor.value));
  }
  byId("label-undo").disabled = !editor.canUndo;
  byId("label-redo").disabled = !editor.canRedo;
  byId("label-size").value = String(editor.sizeStep);
  setText(byId("label-size-text"), `${editor.size} px`);
  byId("label-opacity").value = String(Math.round(100 * editor.opacity));
  setText(byId("label-opacity-text"), `${Math.round(100 * editor.opacity)} %`);
  byId("label-polygon").hidden = editor.corners === 0;
  byId("label-close").disabled = editor.corners < 3;
  byId("label-parts").hidden = editor.tool !== "superpixel" || editor.hasParts;
  for (const input of document.querySelectorAll("input[name=label-shown]")) input.checked = input.value === editor.shown;
}

for (const [tool, { key, name, help }] of Object.entries(TOOLS)) {
  const button = make("button", { type: "button", className: "button", dataset: { tool }, title: `${help} (${key.toUpperCase()})` }, name);
  button.addEventListener("click", () => {
    editor.setTool(tool);
    canvas.focus({ preventScroll: true });
  });
  byId("label-tools").append(button);
}

byId("label-size").max = String(LabelEditor.sizes.length - 1);
byId("label-size").addEventListener("input", ({ target }) => editor.setSizeStep(Number(target.value)));
byId("label-opacity").addEventListener("input", ({ target }) => editor.setOpacity(Number(target.value) / 100));
byId("label-undo").addEventListener("click", () => editor.undo());
byId("label-redo").addEventListener("click", () => editor.redo());
byId("label-revert").addEventListener("click", () => editor.revert());
byId("label-zoom-in").addEventListener("click", () => editor.zoom(1.5));
byId("label-zoom-out").addEventListener("click", () => editor.zoom(1 / 1.5));
byId("label-fit").addEventListener("click", () => editor.fit());
byId("label-close").addEventListener("click", () => editor.closePolygon());
byId("label-corner").addEventListener("click", () => editor.removeCorners());
byId("label-retry").addEventListener("click", () => shown?.saver.retry());
byId("label-decide").addEventListener("click", decide);
for (const input of document.querySelectorAll("input[name=label-shown]")) input.addEventListener("change", () => editor.show(input.value));

editor.addEventListener("state", showState);
editor.addEventListener("change", () => shown?.saver.change());
window.addEventListener("beforeunload", (event) => {
  // What the browser keeps is restored; only what it cannot keep would be lost.
  const all = [...leaving.values(), ...(shown ? [shown.saver] : [])];
  if (all.some((saver) => !saver.isSaved && !saver.isKept)) event.preventDefault();
});
