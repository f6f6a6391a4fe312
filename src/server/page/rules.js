/* The rules of the stream in the large view: their state, and the dialog that adds and changes them. */
import { announce, byId, complain, confirmed, icon, make, openDialog, setText } from "./dom.js";
import { changeLists, DEFAULTS, defaultFor, defaultRelease, textOf } from "./lists.js";
import { session } from "./session.js";
import { moment, percent } from "./words.js";

/** After a change, the list of streams can be older than the change for this time. */
const SETTLE_MS = 2000;

const CONDITIONS = { above: "cover at least", below: "cover less than", absent: "are absent", entered: "entered", left: "left" };
const HINTS = {
  above: "The event lasts until they cover less than the share of the end.",
  below: "The event lasts until they cover the share of the end or more.",
  absent: "They are absent while they cover less than the share of the end; the event lasts until they cover the share.",
  entered: "They were absent and now cover at least the share. The event has no duration.",
  left: "They covered the share and now cover less than the share of the end. The event has no duration.",
};

let name = null;
let report = null;
let changedAt = -Infinity;

/** Shows the rules of a stream; null hides them. */
export function open(stream) {
  [name, report, changedAt] = [stream, null, -Infinity];
  byId("rules-list").replaceChildren();
  byId("rules-list").dataset.key = "";
}

export function update(next) {
  // The states are always new.
  if (performance.now() - changedAt < SETTLE_MS) next = { ...next, config: report.config };
  report = next;
  show();
}

const settings = () => report?.config?.rule ?? [];
const mayEdit = () => session.mayOperate() && Boolean(report?.config);

/* ---- The list ---- */

/** A share in percent, without the digits that only binary fractions have. */
const toPercent = (share) => String(Number((100 * share).toFixed(4)));

/** A rule as a sentence: "person, vehicle cover at least 2 % of Loading bay for 2s". */
function sentence(rule) {
  const where = rule.zone ?? "the frame";
  const share = { above: rule.share, below: rule.share }[rule.when];
  const condition = share === undefined ? `${CONDITIONS[rule.when]}${rule.when === "absent" ? " from" : ""} ${where}` : `${CONDITIONS[rule.when]} ${toPercent(share)} % of ${where}`;
  return `${rule.classes.join(", ")} ${condition}${rule.for === "0s" ? "" : ` for ${rule.for}`}${rule.record ? ", recorded" : ""}`;
}

function show() {
  const states = report?.rules ?? [];
  // A rule that was just added has no state yet.
  const missing = settings().filter((rule) => !states.some((state) => state.name === rule.name));
  const shown = [...states, ...missing.map((rule) => ({ name: rule.name, zone: rule.zone ?? null, state: "unknown", share: 0, events: 0, event: null }))];
  const list = byId("rules-list");
  const key = JSON.stringify([shown.map((state) => state.name), settings(), mayEdit()]);
  if (list.dataset.key !== key) {
    const focused = document.activeElement?.closest?.("#rules-list li")?.dataset.rule;
    list.dataset.key = key;
    list.replaceChildren(...shown.map(row));
    if (focused !== undefined) (list.querySelector(`[data-rule="${CSS.escape(focused)}"] button`) ?? byId("rule-add")).focus({ preventScroll: true });
  }
  for (const state of shown) fill(list.querySelector(`[data-rule="${CSS.escape(state.name)}"]`), state);
  byId("rule-add").hidden = !mayEdit();
  byId("rules-hint").hidden = shown.length > 0;
  setText(byId("rules-hint"), mayEdit() ? "A rule makes events: “person covers 2 % of the loading bay for 5 s”." : "This stream has no rules.");
}

function row(state) {
  const rule = settings().find((entry) => entry.name === state.name);
  const text = make("span", { className: "rule-text" }, rule ? sentence(rule) : `recorded event in ${state.zone ?? "the frame"}`);
  const head = make("div", { className: "rule-head" }, make("b", { className: "rule-name" }, state.name), make("span", { className: "pill" }));
  const parts = [head];
  if (rule && mayEdit()) {
    const edit = make("button", { type: "button", className: "button quiet square", title: "Change", "aria-label": `Change rule ${state.name}` }, icon("pen"));
    edit.addEventListener("click", () => start(rule.name));
    const bin = make("button", { type: "button", className: "button quiet square", title: "Delete", "aria-label": `Delete rule ${state.name}` }, icon("bin"));
    bin.addEventListener("click", () => removeRule(rule.name));
    parts.push(edit, bin);
  }
  const facts = make("span", { className: "rule-facts" });
  return make("li", { dataset: { rule: state.name } }, ...parts, text, facts);
}

function fill(entry, state) {
  const pill = entry.querySelector(".pill");
  setText(pill, state.state);
  pill.dataset.rule = state.state;
  const since = state.event ? ` since ${moment(state.event.start)}` : "";
  const events = state.events === 1 ? "1 event" : `${state.events} events`;
  const now = state.state === "unknown" ? "no current mask" : `${percent(state.share)} now`;
  setText(entry.querySelector(".rule-facts"), `${now}${since} · ${events}`);
}

/* ---- Changes ---- */

async function save(change) {
  const stream = name;
  const answer = await changeLists(stream, change);
  if (stream !== name) return;
  report = { ...report, config: answer.config, rules: answer.rules };
  changedAt = performance.now();
  show();
}

async function removeRule(rule) {
  if (!(await confirmed(`Delete rule ${rule}?`, "Its event, if it has one now, ends. Events of the past are kept.", "Delete"))) return;
  try {
    await save(({ rule: list }) => ({ rule: list.filter((old) => old.name !== rule) }));
    announce(`Rule ${rule} deleted`);
  } catch (error) {
    complain(`${name}: rule ${rule} was not deleted: ${textOf(error)}`);
  }
}

/* ---- The dialog ---- */

const dialog = byId("rule-editor");
const form = byId("rule-form");
const field = (key) => byId(`rule-${key.replace("_", "-")}`);
const errorOf = (key) => byId(`rule-${key.replace("_", "-")}-error`);
const KEYS = ["name", "classes", "zone", "when", "share", "release", "for", "cooldown", "record", "pre_roll", "post_roll"];

/** Name of the rule that is changed; null for a new one. */
let before = null;
let values = {};

function start(rule) {
  before = rule;
  values = settings().find((entry) => entry.name === rule) ?? { name: "", classes: [], when: "above", share: 0.02 };
  setText(byId("rule-title"), rule === null ? "Add a rule" : `Change rule ${rule}`);
  setText(byId("rule-go"), rule === null ? "Add" : "Save");
  field("name").value = values.name;
  buildClasses();
  const zones = (report.config.zone ?? []).map((zone) => zone.name);
  field("zone").replaceChildren(make("option", { value: "" }, "The whole frame"), ...zones.map((zone) => make("option", { value: zone }, zone)));
  field("zone").value = values.zone ?? "";
  field("when").value = values.when;
  field("share").value = toPercent(values.share);
  const isDefault = values.release === undefined || Math.abs(values.release - defaultRelease(values)) < 1e-9;
  field("release").value = isDefault ? "" : toPercent(values.release);
  field("for").value = values.for === undefined || values.for === defaultFor(values) ? "" : values.for;
  for (const key of ["cooldown", "pre_roll", "post_roll"]) field(key).value = values[key] === undefined || values[key] === DEFAULTS[key] ? "" : values[key];
  field("record").checked = values.record ?? DEFAULTS.record;
  setText(byId("rule-record-hint"), recordHint(report.config.record));
  showErrors([]);
  fail("");
  showDefaults();
  openDialog(dialog);
  field("name").focus();
}

/** The classes of the model, and those of the rule that the model does not have. */
function buildClasses() {
  const legend = report.legend ?? [];
  const foreign = values.classes.filter((entry) => !legend.some((known) => known.name === entry));
  const box = (entry, color, note) => {
    const input = make("input", { type: "checkbox", name: "class", value: entry, checked: values.classes.includes(entry) });
    const swatch = make("span", { className: "swatch" });
    if (color) swatch.style.backgroundColor = color;
    return make("label", { className: "rule-class" }, input, swatch, note ? `${entry} (${note})` : entry);
  };
  field("classes").replaceChildren(...legend.map((entry) => box(entry.name, entry.color)), ...foreign.map((entry) => box(entry, null, "not in the model")));
}

/** What the recording of events needs. `record` are the settings of the stream's recording. */
function recordHint(record) {
  if (!record?.dir) return "The stream has no recording: add [stream.record] to the configuration file.";
  if (record.when !== "event") return "The stream is recorded all the time. With stream.record.when = \"event\", only events are.";
  return "A change of this restarts the stream.";
}

/** The defaults depend on condition and share; the times around the event on whether it is recorded. */
function showDefaults() {
  const rule = { when: field("when").value, share: Number(field("share").value) / 100 };
  field("release").placeholder = rule.share > 0 ? `${toPercent(defaultRelease(rule))}` : "";
  field("for").placeholder = defaultFor(rule);
  for (const key of ["cooldown", "pre_roll", "post_roll"]) field(key).placeholder = DEFAULTS[key];
  byId("rule-rolls").hidden = !field("record").checked;
  setText(byId("rule-when-hint"), HINTS[rule.when]);
}

function fail(text) {
  byId("rule-error").hidden = text === "";
  setText(byId("rule-error"), text);
}

/** Shows errors at their fields: `stream[gate].rule[1].share`. Returns those of other keys. */
function showErrors(errors, index = -1) {
  const prefix = `.rule[${index}].`;
  const keyOf = ({ key }) => (key.includes(prefix) ? key.slice(key.indexOf(prefix) + prefix.length).split(/[.[]/)[0] : null);
  for (const key of KEYS) {
    const mine = errors.filter((error) => keyOf(error) === key);
    const below = errorOf(key);
    below.hidden = mine.length === 0;
    setText(below, mine.map(({ problem, help }) => (help ? `${problem} (${help})` : problem)).join(" "));
    // A group of checkboxes cannot be invalid; its first one is focused.
    if (key !== "classes") field(key).ariaInvalid = String(mine.length > 0);
  }
  // What is wrong must be seen.
  if (["pre_roll", "post_roll"].some((key) => !errorOf(key).hidden)) byId("rule-rolls").hidden = false;
  const first = KEYS.find((key) => !errorOf(key).hidden);
  if (first) (first === "classes" ? field(first).querySelector("input") : field(first))?.focus();
  return errors.filter((error) => !KEYS.includes(keyOf(error)));
}

/** The rule as the form has it; keys that are empty get the defaults of the service. */
function read() {
  const number = (key) => (field(key).value.trim() === "" ? null : Number((Number(field(key).value.replace(",", ".")) / 100).toFixed(6)));
  const text = (key) => field(key).value.trim() || null;
  const classes = [...field("classes").querySelectorAll("input:checked")].map((input) => input.value);
  const rule = { ...values, name: text("name") ?? "", classes, zone: text("zone"), when: field("when").value, share: number("share"), release: number("release"), for: text("for"), cooldown: text("cooldown"), record: field("record").checked, pre_roll: text("pre_roll"), post_roll: text("post_roll") };
  return Object.fromEntries(Object.entries(rule).filter(([, value]) => value !== null));
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const rule = read();
  const go = byId("rule-go");
  go.disabled = true;
  fail("");
  showErrors([]);
  let index = -1;
  try {
    await save(({ rule: list }) => {
      index = list.findIndex((old) => old.name === before);
      if (index < 0) index = list.length;
      return { rule: [...list.slice(0, index), rule, ...list.slice(index + 1)] };
    });
    dialog.close();
    announce(before === null ? `Rule ${rule.name} added` : `Rule ${rule.name} changed`);
  } catch (error) {
    const rest = showErrors(error.errors ?? [], index);
    if (!error.errors?.length) fail(error.message);
    else if (rest.length > 0) fail(rest.map(({ key, problem }) => `${key}: ${problem}`).join("; "));
  }
  go.disabled = false;
});

field("when").addEventListener("change", showDefaults);
field("share").addEventListener("input", showDefaults);
field("record").addEventListener("change", showDefaults);
byId("rule-add").addEventListener("click", () => start(null));
session.addEventListener("change", () => report && show());
