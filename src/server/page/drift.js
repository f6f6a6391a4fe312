/* Whether the camera has changed: what it looked like before and now. */
import { getJson, ofStream, postJson } from "./api.js";
import { byId, complain, make, setText } from "./dom.js";
import { session } from "./session.js";

const POLL_MS = 5000;
const NAMES = { luma: "Brightness", contrast: "Contrast", sharpness: "Sharpness", saturation: "Colour" };
/** Classes that are shown: those that differ most. */
const CLASSES = 6;

let stream = null;
let loadedAt = -Infinity;
let newest = null;

/** Shows the stream of this report, from the newest state of its camera. */
export async function update(report) {
  if (stream !== report.name) [stream, loadedAt, newest] = [report.name, -Infinity, null];
  if (performance.now() - loadedAt < POLL_MS) return;
  loadedAt = performance.now();
  const name = stream;
  try {
    const drift = await getJson(ofStream(name, "/drift"));
    if (name !== stream) return;
    newest = drift;
    show();
  } catch {
    byId("drift").hidden = true;
  }
}

function show() {
  const { changed, since, changes, settling, now, before, training } = newest;
  byId("drift").hidden = !now;
  if (!now) return;
  byId("drift").classList.toggle("changed", changed);
  const unusual = Object.entries(training?.scores ?? {}).filter(([, score]) => score > 1).map(([name]) => (NAMES[name] ?? "places of classes").toLowerCase());
  const unlike = unusual.length > 0 ? ` It differs from the images that the model was trained on: ${unusual.join(", ")}.` : "";
  const when = changed ? new Date(since).toLocaleString() : "";
  const state = changed ? `This camera has changed since ${when}: ${changes.join(", ")}.` : settling ? "It is being learnt what this camera looks like." : "This camera looks as before.";
  setText(byId("drift-text"), state + unlike);
  byId("drift-accept").hidden = !changed || !session.mayOperate();
  byId("drift-bars").replaceChildren(head(), make("tbody", {}, ...rows(now, before ?? now).map(row)));
}

const head = () => make("thead", {}, make("tr", {}, ...["", "before", "now"].map((text) => make("th", { scope: "col" }, text))));

function rows(now, before) {
  const features = Object.entries(NAMES).map(([key, label]) => ({ label, now: now[key], before: before[key] }));
  const classes = Object.keys(now.classes).map((name) => ({ label: name, now: now.classes[name], before: before.classes[name] ?? 0 }));
  const most = ({ now: a, before: b }) => Math.abs(a - b) * 10 + Math.max(a, b);
  classes.sort((a, b) => most(b) - most(a));
  return [...features, ...classes.slice(0, CLASSES)];
}

function row({ label, now, before }) {
  const scale = Math.max(1, now, before);
  return make("tr", {}, make("th", { scope: "row" }, label), bar(before, scale, "before"), bar(now, scale, "now"));
}

function bar(value, scale, kind) {
  const filled = make("span", { className: `drift-bar ${kind}` });
  filled.style.width = `${(100 * value) / scale}%`;
  return make("td", {}, make("span", { className: "drift-track" }, filled), make("span", { className: "drift-value" }, `${(100 * value).toFixed(0)} %`));
}

byId("drift-accept").addEventListener("click", async () => {
  try {
    await postJson(ofStream(stream, "/drift/accept"));
    loadedAt = -Infinity;
    await update({ name: stream });
  } catch (error) {
    complain(`${stream}: ${error.message}`);
  }
});
