/* The dialog that adds or changes a stream. */
import { getJson, ofStream, patchJson, postJson } from "./api.js";
import { byId, complain, make, openDialog, setText } from "./dom.js";

const dialog = byId("editor");
const form = byId("editor-form");

/** The keys are those of the configuration file. */
const FIELDS = [
  { key: "name", label: "Name", hint: "Letters, digits, - and _. The name is part of the stream's addresses.", fixed: true, required: true },
  { key: "source", label: "Source", hint: "rtsp://camera/path, https://…, test://smpte. If the camera needs a password: rtsp://USER:PASSWORD@camera/path. The password is not shown again.", required: true },
  { key: "show", label: "Show", options: [["full-rate", "every frame, newest mask"], ["matched", "only frames with their own mask"]] },
];

/** Name of the stream that is changed; null for a new stream. */
let name = null;
let before = {};

export function addStream() {
  start(null, { show: "full-rate" });
}

export async function editStream(stream) {
  try {
    const report = await getJson(ofStream(stream));
    start(stream, report.config);
  } catch (error) {
    complain(`${stream}: ${error.message}`);
  }
}

function start(stream, values) {
  [name, before] = [stream, values];
  setText(byId("editor-title"), stream === null ? "Add a stream" : `Change ${stream}`);
  setText(byId("editor-go"), stream === null ? "Add" : "Save");
  fail("");
  byId("editor-fields").replaceChildren(...FIELDS.map((field) => build(field, values)));
  openDialog(dialog);
  form.querySelector("input:not(:disabled)").focus();
}

function build({ key, label, hint, options, fixed, required }, values) {
  const id = `editor-${key}`;
  const input = options
    ? make("select", { id, name: key }, ...options.map(([value, text]) => make("option", { value }, text)))
    : make("input", { id, name: key, spellcheck: false, autocomplete: "off", required: Boolean(required) });
  input.value = values[key] ?? (options ? options[0][0] : "");
  input.disabled = Boolean(fixed) && name !== null;
  input.setAttribute("aria-describedby", `${id}-hint`);
  const below = make("span", { id: `${id}-hint`, className: "field-hint" }, hint ?? "");
  return make("div", { className: "field", dataset: { key } }, make("label", { htmlFor: id }, label), input, below);
}

function fail(text) {
  byId("editor-error").hidden = text === "";
  setText(byId("editor-error"), text);
}

/** Shows errors at their fields. Returns the texts of errors that belong to none of the fields. */
function showErrors(errors) {
  const rest = [];
  for (const field of form.querySelectorAll(".field")) {
    const [input, below] = [field.querySelector("input, select"), field.querySelector(".field-hint")];
    const mine = errors.filter((error) => keyOf(error) === field.dataset.key);
    input.ariaInvalid = String(mine.length > 0);
    below.classList.toggle("error", mine.length > 0);
    setText(below, mine.length > 0 ? mine.map(textOf).join(" ") : FIELDS.find(({ key }) => key === field.dataset.key).hint ?? "");
  }
  for (const error of errors) if (!form.querySelector(`.field[data-key="${CSS.escape(keyOf(error))}"]`)) rest.push(textOf(error));
  form.querySelector("[aria-invalid=true]")?.focus();
  return rest;
}

/** The field of an error: `source` for `stream[gate].source`. */
const keyOf = ({ key }) => key.split(".").at(-1);
const textOf = ({ problem, help }) => (help ? `${problem} (${help})` : problem);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const wish = {};
  for (const { key } of FIELDS) {
    const input = byId(`editor-${key}`);
    const value = input.value.trim();
    if (input.disabled || value === (before[key] ?? "")) continue;
    if (value !== "") wish[key] = value;
    // Deletes the key from the configuration.
    else if (name !== null) wish[key] = null;
  }
  if (name === null) wish.show ??= before.show;
  const go = byId("editor-go");
  go.disabled = true;
  fail("");
  showErrors([]);
  try {
    if (name === null) await postJson("/api/v1/streams", wish);
    else if (Object.keys(wish).length > 0) await patchJson(ofStream(name), wish);
    dialog.close();
  } catch (error) {
    const rest = showErrors(error.errors);
    if (error.errors.length === 0 || rest.length > 0) fail([error.message, ...rest].join(" "));
  }
  go.disabled = false;
});
