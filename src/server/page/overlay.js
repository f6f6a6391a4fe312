/*
 * How masks are drawn: style, opacity, legend, and which classes. What is chosen shows at once and goes to the service a
 * moment later, together with what was chosen meanwhile; where the service refuses, the controls go back.
 */
import { getJson, ofStream, patchJson } from "./api.js";
import { byId, complain, make, setText } from "./dom.js";
import { session } from "./session.js";

const SEND_MS = 150;
/** Somebody else may change it, too. */
const REFRESH_MS = 5000;
/** What the list of streams says may be a little older than a change that was just made. */
const SETTLE_MS = 2000;

const fields = byId("masks");
const styles = [...fields.querySelectorAll("input[name=style]")];

let name = null;
let classes = [];
/** What the service said last; null as long as it has not, false where it cannot. */
let known = null;
/** Changes that the service has not confirmed yet. */
let wishes = {};
let timer = null;
let sending = false;
let changedAt = -Infinity;
/** Why changes are forgotten at the next start, as it was told last. */
let told = null;

const isBusy = () => sending || Object.keys(wishes).length > 0;
const current = () => ({ ...known, ...wishes });
const hidden = () => new Set(known ? current().hide : classes.filter((entry) => entry.hidden).map((entry) => entry.name));

/** Shows the controls of this stream; null when none is shown. */
export function open(stream) {
  if (timer !== null) flush();
  [name, known, wishes, classes] = [stream, null, {}, []];
  byId("classes").replaceChildren();
  show();
  if (name !== null) refresh();
}

/** What the list of streams says of the classes: changes by others arrive here first. */
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

/* ---- Showing ---- */

function build() {
  byId("classes").replaceChildren(...classes.map((entry) => {
    const swatch = make("span", { className: "swatch" });
    swatch.style.backgroundColor = entry.color;
    const button = make("button", { type: "button", className: "class", dataset: { class: entry.name } }, swatch, entry.name);
    button.addEventListener("click", () => toggle(entry.name));
    return make("li", {}, button);
  }));
}

function show() {
  const may = Boolean(known) && session.mayOperate();
  fields.hidden = !known;
  fields.disabled = !may;
  for (const button of [byId("all"), byId("none")]) button.hidden = !may;
  const hint = known === false ? "This service cannot change what is drawn while it runs."
    : known && !session.mayOperate() ? "Only operators change what is drawn." : "";
  byId("masks-hint").hidden = hint === "";
  setText(byId("masks-hint"), hint);
  const off = hidden();
  for (const button of byId("classes").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(!off.has(button.dataset.class)));
    button.disabled = !may;
  }
  if (!known) return;
  const { style, alpha, legend } = current();
  for (const input of styles) input.checked = input.value === style;
  const percent = Math.round(100 * alpha);
  // Not while somebody drags it.
  if (document.activeElement !== byId("alpha") || !isBusy()) byId("alpha").value = percent;
  setText(byId("alpha-text"), `${percent} %`);
  byId("legend").checked = legend;
}

/* ---- Changing ---- */

function wish(change) {
  Object.assign(wishes, change);
  show();
  clearTimeout(timer);
  timer = setTimeout(flush, SEND_MS);
}

async function flush() {
  clearTimeout(timer);
  timer = null;
  // What comes while one request is under way goes with the next.
  if (sending || Object.keys(wishes).length === 0) return;
  const [sent, stream] = [{ ...wishes }, name];
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
  // What was wished meanwhile stays wished.
  for (const key of Object.keys(sent)) if (wishes[key] === sent[key]) delete wishes[key];
  if (answer) known = answer;
  if (answer?.reason && answer.reason !== told) complain(`${stream}: shown, but not remembered: ${answer.reason}`);
  told = answer?.reason ?? told;
  show();
  if (Object.keys(wishes).length > 0) flush();
}

function toggle(entry) {
  const off = hidden();
  if (!off.delete(entry)) off.add(entry);
  hide(off);
}

/** In the order of the classes, so that the configuration file reads well. */
const hide = (off) => wish({ hide: classes.map((entry) => entry.name).filter((entry) => off.has(entry)) });

for (const input of styles) input.addEventListener("change", () => wish({ style: input.value }));
byId("alpha").addEventListener("input", () => wish({ alpha: Number(byId("alpha").value) / 100 }));
byId("legend").addEventListener("change", () => wish({ legend: byId("legend").checked }));
byId("all").addEventListener("click", () => hide(new Set()));
byId("none").addEventListener("click", () => hide(new Set(classes.map((entry) => entry.name))));
session.addEventListener("change", show);
// Who leaves at once has still chosen.
window.addEventListener("pagehide", flush);
