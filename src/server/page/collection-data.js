/* The collection of a stream in the API: its frames and classes, and their states. */
import { getJson, ofStream, request } from "./api.js";
import { decodeLabel } from "./label-png.js";

const IMAGE_LIMIT_MS = 60_000;

/** States of frames, with the words for them. */
export const STATES = { new: "to review", later: "later", accepted: "accepted", discarded: "discarded" };

/** The path of a frame's file in the API, or of the frame. */
export const ofFrame = (stream, id, file = "") => ofStream(stream, `/collection/${encodeURIComponent(id)}${file && `/${file}`}`);

/** Frames in one response. */
const PAGE = 1000;

/** All frames of a stream, also the discarded ones, the newest first. `classes[index].color` is `#rrggbb`. */
export async function loadCollection(stream) {
  const all = [];
  let first = null;
  for (const state of ["", "&state=discarded"]) {
    let before = "";
    for (;;) {
      const page = await getJson(ofStream(stream, `/collection?limit=${PAGE}${state}${before}`), { limit: IMAGE_LIMIT_MS });
      first ??= page;
      all.push(...page.frames);
      if (page.frames.length < PAGE) break;
      before = `&before=${page.frames.at(-1).id}`;
    }
  }
  // A frame whose state changes between two requests is in both lists.
  const frames = [...new Map(all.map((record) => [record.id, record])).values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  return { ...first, frames };
}

export const loadFile = (stream, id, file) => request("GET", ofFrame(stream, id, file), { limit: IMAGE_LIMIT_MS });

/** Sets the state of a frame that has this revision. Resolves to its record. */
export async function setState(stream, { id, revision }, state) {
  const response = await request("PATCH", ofFrame(stream, id), { body: { state }, headers: { "If-Match": `"${revision}"` } });
  return response.json();
}

/** The classes of labels that were read, by stream, frame and revision. */
const known = new Map();

const labelKey = (stream, { id, revision }) => JSON.stringify([stream, id, revision]);

/** Whether the label of a frame has pixels of a class; undefined until [loadClasses] has read it. */
export const hasClass = (stream, record, index) => known.get(labelKey(stream, record))?.has(index);

/** Reads the label of a frame, to know its classes. */
export async function loadClasses(stream, record) {
  const key = labelKey(stream, record);
  if (known.has(key)) return;
  const response = await loadFile(stream, record.id, "label.png");
  known.set(key, new Set((await decodeLabel(await response.arrayBuffer())).pixels));
}

/** Why a frame was chosen, in words. */
export function reasonOf({ reason, uncertainty, novelty }) {
  const part = (value) => `${Math.round(100 * value)} %`.replace(" ", "\u00a0");
  if (reason === "uncertain") return `uncertain, ${part(uncertainty)}`;
  if (reason === "novel") return `new view, ${part(novelty)}`;
  return "chosen at random";
}

/** The palette of labels: red, green and blue of 256 colours. */
export function paletteOf(classes) {
  const palette = new Uint8Array(768);
  classes.forEach(({ color }, at) => palette.set([1, 3, 5].map((from) => Number.parseInt(color.slice(from, from + 2), 16)), 3 * at));
  // Pascal VOC's colour of void.
  palette.set([224, 224, 192], 3 * 255);
  return palette;
}
