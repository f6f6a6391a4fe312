/* The dialog of the models: the file that runs, the file before, and compared files that may replace it. */
import { getJson, postJson } from "./api.js";
import { announce, byId, make, openDialog, setText } from "./dom.js";

const dialog = byId("models");
const list = byId("models-list");

/** How often a change is looked at while the file is being loaded. */
const POLL_MS = 500;
const WORDS = { better: "better", worse: "worse", "not-distinguishable": "not distinguishable" };

/** Called with the reports of the models after each change. */
let changed = () => {};

export function whenChanged(action) {
  changed = action;
}

const pathOf = (model, rest = "") => `/api/v1/models/${encodeURIComponent(model.model)}${rest}`;
const nameOf = (path) => path.split("/").at(-1).replace(/\.onnx$/, "");

export async function openModels() {
  fail("");
  list.replaceChildren();
  openDialog(dialog);
  await refresh();
}

async function refresh() {
  try {
    const models = await getJson("/api/v1/models");
    const candidates = await Promise.all(models.map((model) => getJson(pathOf(model, "/candidates"))));
    list.replaceChildren(...models.map((model, at) => section(model, candidates[at], models.length > 1)));
    changed(models);
  } catch (error) {
    fail(error.message);
  }
}

/** One model: what runs, the way back, and the compared files. */
function section(model, candidates, several) {
  const title = several ? `${model.model}: ${model.name}` : model.name;
  const lasts = model.saved ? "the next start loads this file too" : "until the next start of the service";
  const parts = [
    make("h3", {}, title),
    make("p", { className: "field-hint" }, `${model.path} on ${model.actual}; ${lasts}`),
  ];
  if (model.previous) {
    const back = make("button", { type: "button", className: "button", dataset: { back: model.model } }, `Back to ${nameOf(model.previous)}`);
    back.addEventListener("click", () => change(model, "/rollback", undefined));
    parts.push(make("p", {}, back));
  }
  const others = candidates.filter((candidate) => !candidate.running);
  for (const candidate of candidates.filter(({ running }) => running)) parts.push(verdict(candidate));
  parts.push(...others.map((candidate) => card(model, candidate)));
  if (others.length === 0) {
    const hint = "No other compared model is beside this file. maskcast model compare makes a comparison.";
    parts.push(make("p", { className: "field-hint" }, hint));
  }
  return make("section", { dataset: { model: model.model } }, ...parts);
}

/** The result of a comparison, with the link to the report. */
function verdict(candidate) {
  const report = make("a", { href: candidate.report, target: "_blank", rel: "noopener" }, "Report");
  const old = candidate.outdated ? " The file was changed after the comparison." : "";
  const badge = make("span", { className: "verdict", dataset: { verdict: candidate.verdict } }, WORDS[candidate.verdict] ?? candidate.verdict);
  const text = candidate.summary.replace(/^[^:]*: /, "");
  return make("p", { className: "comparison" }, badge, ` than ${candidate.compared_with}: ${text}.${old} `, report);
}

function card(model, candidate) {
  const use = make("button", { type: "button", className: "button primary", dataset: { use: candidate.name } }, "Use this model");
  use.setAttribute("aria-label", `Use this model: ${candidate.name}`);
  use.addEventListener("click", () => change(model, "", { path: candidate.path, save: true }));
  return make("div", { className: "candidate" }, make("h4", {}, candidate.name), verdict(candidate), use);
}

/** Requests another file, and waits until it runs or is refused. */
async function change(model, rest, body) {
  fail("");
  for (const button of list.querySelectorAll("button")) button.disabled = true;
  setText(byId("models-state"), "The file is being loaded; the current one runs meanwhile.");
  try {
    await postJson(pathOf(model, rest), body);
    const done = await settled(model);
    announce(`${done.name} runs`);
    if (done.change.not_saved) fail(`The next start loads the file before: ${done.change.not_saved}`);
  } catch (error) {
    fail(error.message);
  }
  setText(byId("models-state"), "");
  await refresh();
}

async function settled(model) {
  for (;;) {
    const report = await getJson(pathOf(model));
    const { state, reason } = report.change;
    if (state === "refused") throw new Error(reason);
    if (state === "done") return report;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function fail(text) {
  byId("models-error").hidden = text === "";
  setText(byId("models-error"), text);
}
