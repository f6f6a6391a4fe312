/* The question which label is kept when two people have corrected the same frame: both are shown side by side. */
import { byId, openDialog, setText } from "./dom.js";
import { VOID, countDifferent } from "./label-mask.js";

const dialog = byId("label-conflict");
let resolve = () => {};

function paint(canvas, image, pixels, other, classes) {
  const { width, height } = image;
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.length; at += 1) {
    const color = pixels[at] === VOID ? "#808080" : classes[pixels[at]]?.color ?? "#ff00ff";
    // Where both are the same, the picture is seen through the label.
    const alpha = pixels[at] === other[at] ? 0.25 : 0.85;
    for (let n = 0; n < 3; n += 1) {
      const channel = Number.parseInt(color.slice(1 + 2 * n, 3 + 2 * n), 16);
      data.data[4 * at + n] = Math.round(data.data[4 * at + n] * (1 - alpha) + channel * alpha);
    }
  }
  context.putImageData(data, 0, 0);
}

/** Asks which label is kept. Resolves to "mine", "theirs" or "later". `image` has the size of the labels. */
export function askConflict({ image, mine, theirs, classes }) {
  const count = countDifferent(mine, theirs);
  setText(byId("label-conflict-text"), `Somebody else has saved this frame while you corrected it. ${count} of ${mine.length} pixels differ; they are drawn strongly below.`);
  paint(byId("label-conflict-mine"), image, mine, theirs, classes);
  paint(byId("label-conflict-theirs"), image, theirs, mine, classes);
  resolve("later");
  openDialog(dialog);
  return new Promise((done) => (resolve = done));
}

for (const [id, choice] of [["label-keep-mine", "mine"], ["label-take-theirs", "theirs"]]) {
  byId(id).addEventListener("click", () => {
    resolve(choice);
    dialog.close();
  });
}
// This event is dispatched one task after the dialog closes; by then another question may be open.
dialog.addEventListener("close", () => {
  if (!dialog.open) resolve("later");
});
