/*
 * The controls of the overlay: style, opacity, legend, visible classes and their strength. The controls show a change at once. Changes are
 * collected for a short time and sent together; if the service refuses them, the controls are reset.
 */
import { getJson, ofStream, patchJson } from "./api.js";
import { byId, complain, make, setText } from "./dom.js";
import { session } from "./session.js";
import { percent } from "./words.js";

const SEND_MS = 150;
/** Other clients can change the overlay, too. */
const REFRESH_MS = 5000;
/** After a change, the list of streams can be older than the change for this time. */
const SETTLE_MS = 2000;

const fields = byId("masks");
const styles = [...fields.querySelectorAll("input[name=style]")];
const legends = [...fields.querySelectorAll("input[name=legend]")];

let name = null;
let classes = [];
let shares = null;
/** The overlay settings in the last response; null before the first one, false if the service has no overlay settings. */
let known = null;
/** Changes that the service has not confirmed yet. */
let pending = {};
let timer = null;
let sending = false;
let changedAt = -Infinity;
/** The last error of writing the configuration file that was shown. */
let shownError = null;

const isBusy = () => sending || Object.keys(pending).length > 0;
const current = () => ({ ...known, ...pending });
/** How strongly a class is drawn: 0 to 1. A change that resets it (null) is shown when the service has confirmed it. */
const weight = (entry) => pending.weights?.[entry.name] ?? (known ? known.weights[entry.name] : null) ?? entry.weight;
const namesOf = (list) => list.map((entry) => entry.name);
/** The hidden classes. Without a setting (null), those that stand for the rest of the frame. */
const hidden = () => new Set(known ? current().hide ?? namesOf(classes.filter((entry) => entry.rest)) : namesOf(classes.filter((entry) => entry.hidden)));

/** Shows the controls for a stream; null hides them. */
export function open(stream) {
  if (timer !== null) flush();
  [name, known, pending, classes, shares] = [stream, null, {}, [], null];
  byId("classes").replaceChildren();
  show();
  if (name !== null) refresh();
}

/** Takes the classes from the list of streams, which also has changes by other clients. */
export function update(legend) {
  const same = legend.length === classes.length && legend.every(({ name, color }, at) => classes[at].name === name && classes[at].color === color);
  classes = legend;
  if (!same) build();
  const settled = performance.now() - changedAt > SETTLE_MS;
  if (known && settled && !isBusy()) known.hide = legend.filter((entry) => entry.hidden).map((entry) => entry.name);
  show();
}

async function refresh() {
  const asked = name;
  try {
    const answer = await getJson(ofStream(asked, "/overlay"));
    if (asked !== name || isBusy()) return;
    known = answer;
  } catch (error) {
    if (asked !== name) return;
    if (error.isMissing) known = false;
  }
  show();
}

setInterval(() => {
  if (name !== null && known !== false && document.visibilityState === "visible" && !isBusy()) refresh();
}, REFRESH_MS);

/* ---- Display ---- */

function build() {
  byId("classes").replaceChildren(...classes.map((entry) => {
    const swatch = make("span", { className: "swatch" });
    swatch.style.backgroundColor = entry.color;
    const button = make("button", { type: "button", className: "class", dataset: { class: entry.name } }, swatch, entry.name);
    button.addEventListener("click", () => toggle(entry.name));
    const strength = make("input", {
      type: "range", min: 0, max: 100, step: 5, dataset: { weight: entry.name }, "aria-label": `Strength of ${entry.name}`,
    });
    strength.addEventListener("input", () => weigh(entry.name, Number(strength.value) / 100));
    if (entry.rest) button.title = "The rest of the frame: not drawn unless it is switched on";
    const number = make("span", { className: "class-strength", dataset: { strength: entry.name } });
    return make("li", {}, button, make("span", { className: "class-share", dataset: { share: entry.name } }), strength, number);
  }));
  showShares(shares);
}

/** Shows the shares of the newest mask, `{class: share}`; null without one. */
export function showShares(next) {
  shares = next;
  for (const place of byId("classes").querySelectorAll("[data-share]")) setText(place, shares ? percent(shares[place.dataset.share] ?? 0) : "–");
}

function show() {
  const may = Boolean(known) && session.mayOperate();
  fields.hidden = !known;
  fields.disabled = !may;
  for (const button of [byId("all"), byId("none")]) button.hidden = !may;
  const hint = known === false ? "This service does not support changes of the overlay."
    : known && !session.mayOperate() ? "Only operators can change the overlay." : "";
  byId("masks-hint").hidden = hint === "";
  setText(byId("masks-hint"), hint);
  const off = hidden();
  for (const button of byId("classes").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(!off.has(button.dataset.class)));
    button.disabled = !may;
  }
  for (const entry of classes) {
    const strength = byId("classes").querySelector(`[data-weight="${CSS.escape(entry.name)}"]`);
    const percent = Math.round(100 * weight(entry));
    // Not while the user drags it.
    if (document.activeElement !== strength || !isBusy()) strength.value = percent;
    strength.ariaValueText = `${percent} %`;
    setText(byId("classes").querySelector(`[data-strength="${CSS.escape(entry.name)}"]`), off.has(entry.name) ? "" : `${percent} %`);
    strength.disabled = !may || off.has(entry.name);
  }
  byId("weights-reset").hidden = !may || overrides().length === 0;
  if (!known) return;
  const { style, alpha, smooth, legend } = current();
  for (const input of styles) input.checked = input.value === style;
  const percent = Math.round(100 * alpha);
  // Not while the user drags it.
  if (document.activeElement !== byId("alpha") || !isBusy()) byId("alpha").value = percent;
  setText(byId("alpha-text"), `${percent} %`);
  // Masks without the camera image are opaque.
  byId("alpha").disabled = style === "mask-only";
  byId("smooth").value = smooth;
  for (const input of legends) input.checked = input.value === legend;
}

/* ---- Changes ---- */

function enqueue(change) {
  // The service merges the weights, so that those of several changes are sent together.
  if (change.weights) change = { ...change, weights: { ...pending.weights, ...change.weights } };
  Object.assign(pending, change);
  show();
  clearTimeout(timer);
  timer = setTimeout(flush, SEND_MS);
}

async function flush() {
  clearTimeout(timer);
  timer = null;
  // Changes made during a request are sent with the next one.
  if (sending || Object.keys(pending).length === 0) return;
  const [sent, stream] = [{ ...pending }, name];
  sending = true;
  let answer = null;
  try {
    answer = await patchJson(ofStream(stream, "/overlay"), sent, { keepalive: true });
  } catch (error) {
    complain(`${stream}: the masks were not changed: ${error.message}`);
  }
  sending = false;
  changedAt = performance.now();
  if (stream !== name) return;
  // Keep changes that were made during the request.
  for (const key of Object.keys(sent)) if (pending[key] === sent[key]) delete pending[key];
  if (answer) known = answer;
  if (answer?.reason && answer.reason !== shownError) complain(`${stream}: the change was made, but not saved: ${answer.reason}`);
  shownError = answer?.reason ?? shownError;
  show();
  if (Object.keys(pending).length > 0) flush();
}

function toggle(entry) {
  const off = hidden();
  if (!off.delete(entry)) off.add(entry);
  hide(off);
}

const weigh = (entry, value) => enqueue({ weights: { [entry]: value } });

/** The classes with another weight than that of the model. */
function overrides() {
  const weights = { ...known?.weights, ...pending.weights };
  return Object.keys(weights).filter((entry) => weights[entry] !== null);
}

/** The hidden classes in the order of the model, so that the configuration file is easy to read. */
const hide = (off) => enqueue({ hide: classes.map((entry) => entry.name).filter((entry) => off.has(entry)) });

for (const input of styles) input.addEventListener("change", () => enqueue({ style: input.value }));
byId("alpha").addEventListener("input", () => enqueue({ alpha: Number(byId("alpha").value) / 100 }));
byId("smooth").addEventListener("change", () => enqueue({ smooth: byId("smooth").value }));
for (const input of legends) input.addEventListener("change", () => enqueue({ legend: input.value }));
byId("weights-reset").addEventListener("click", () => enqueue({ weights: Object.fromEntries(overrides().map((entry) => [entry, null])) }));
// As without a setting: a class such as `other` is not shown.
byId("all").addEventListener("click", () => enqueue({ hide: null }));
byId("none").addEventListener("click", () => hide(new Set(classes.map((entry) => entry.name))));
session.addEventListener("change", show);
// Send changes that are still pending when the page is left.
window.addEventListener("pagehide", flush);
