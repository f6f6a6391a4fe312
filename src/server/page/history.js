/* The shares of classes over the last hour, day or week, in the frame or a zone: a chart with a legend, and a table. */
import { getJson, ofStream } from "./api.js";
import { RANGES, rangeChoice } from "./axis.js";
import { Chart, nearest, valueText } from "./chart.js";
import { readable } from "./colour.js";
import { byId, make, setText } from "./dom.js";
import { HISTORY_OFF, moment, percent } from "./words.js";

const REFRESH_MS = 60_000;
/** Series are also told apart by their dashes. */
const DASHES = ["none", "7 3", "2 3", "10 3 2 3"];
/** A series whose share never reaches this is not drawn until it is chosen. */
const NOTHING = 0.0005;
const TABLE_ROWS = 24;

let name = null;
/** The zone that is shown; null for the whole frame. */
let zone = null;
let length = RANGES.hour;
/** The last response; null before the first one. */
let answer = null;
let problem = "";
/** Whether the service has a history. */
let isStored = true;
let legend = [];
let zones = [];
/** Classes that the user has switched on or off. */
let chosen = new Map();
let pointed = null;
let timer = null;

const chart = new Chart((at) => {
  pointed = at;
  showValues();
});

/** Shows the shares of a stream; null hides them. */
export function open(stream) {
  [name, zone, answer, problem, legend, zones, chosen, pointed] = [stream, null, null, "", [], [], new Map(), null];
  clearTimeout(timer);
  byId("shares").hidden = stream === null;
  byId("shares-zone").dataset.key = "";
  show();
  if (stream !== null) refresh();
}

/** Sets whether the service has a history. */
export function setHistory(now) {
  if (now === isStored) return;
  [isStored, answer] = [now, null];
  if (name !== null) refresh();
}

/** Takes the colours of the classes and the names of the zones from a report of the stream. */
export function update(report) {
  const next = JSON.stringify(report.legend);
  if (next !== JSON.stringify(legend)) {
    legend = report.legend;
    show();
  }
  zones = (report.config?.zone ?? []).map((entry) => entry.name);
  showZones();
}

function showZones() {
  const select = byId("shares-zone");
  const key = JSON.stringify(zones);
  if (select.dataset.key === key) return;
  select.dataset.key = key;
  select.replaceChildren(make("option", { value: "" }, "The whole frame"), ...zones.map((entry) => make("option", { value: `=${entry}` }, entry)));
  byId("shares-zone-row").hidden = zones.length === 0;
  if (zone !== null && !zones.includes(zone)) choose(null, length);
  select.value = zone === null ? "" : `=${zone}`;
}

function choose(nextZone, nextLength) {
  [zone, length, answer, pointed] = [nextZone, nextLength, null, null];
  show();
  refresh();
}

/* ---- Loading ---- */

async function refresh() {
  clearTimeout(timer);
  if (!isStored) {
    problem = HISTORY_OFF;
    show();
    return;
  }
  const asked = [name, zone, length];
  const isNow = () => asked[0] === name && asked[1] === zone && asked[2] === length;
  const to = Date.now();
  const query = new URLSearchParams({ from: new Date(to - length).toISOString(), to: new Date(to).toISOString() });
  if (zone !== null) query.set("zone", zone);
  try {
    const next = await getJson(ofStream(name, `/history?${query}`));
    if (!isNow()) return;
    [answer, problem] = [next, ""];
  } catch (error) {
    if (!isNow()) return;
    problem = `The shares cannot be shown: ${error.message}`;
  }
  show();
  timer = setTimeout(whenSeen, REFRESH_MS);
}

function whenSeen() {
  if (document.visibilityState === "visible" && document.body.dataset.view === "detail") refresh();
  else timer = setTimeout(whenSeen, 1000);
}

/* ---- Display ---- */

/** The colour of the panel behind the chart. */
function ground() {
  return getComputedStyle(document.documentElement).getPropertyValue("--card").trim();
}

const total = ({ points }) => points.reduce((sum, [, mean]) => sum + mean, 0);
const highest = ({ points }) => Math.max(0, ...points.map(([, , most]) => most));
const isDrawn = (series) => chosen.get(series.class) ?? highest(series) >= NOTHING;

/** The series, the largest first, with their colours and dashes. */
function styled() {
  const behind = ground();
  const list = [...(answer?.series ?? [])].sort((a, b) => total(b) - total(a));
  return list.map((series, at) => {
    const color = legend.find((entry) => entry.name === series.class)?.color ?? "#808080";
    return { ...series, color: readable(color, behind), dash: DASHES[Math.floor(at / 4) % DASHES.length] };
  });
}

/** The times of the chart: those of the response, as numbers. */
const time = (value) => (typeof value === "number" ? value : Date.parse(value));

function show() {
  const hint = problem || (answer && answer.series.every(({ points }) => points.length === 0) ? "Nothing has been stored for this time yet." : "");
  byId("shares-hint").hidden = hint === "";
  setText(byId("shares-hint"), hint);
  const isShown = answer !== null && hint === "";
  for (const id of ["shares-chart", "shares-legend-box", "shares-table-box"]) byId(id).hidden = !isShown;
  if (!isShown) return;
  const list = styled();
  const where = zone ?? "the whole frame";
  const range = Object.keys(RANGES).find((key) => RANGES[key] === length);
  chart.show(list.filter(isDrawn), {
    from: time(answer.from), to: time(answer.to), step: 1000 * answer.step_s, label: `Chart of the shares of classes in ${where}, last ${range}. A table follows.`,
  });
  showLegend(list);
  showTable(list);
}

function showLegend(list) {
  const box = byId("shares-legend");
  const focused = document.activeElement?.closest?.("#shares-legend button")?.dataset.series;
  box.replaceChildren(...list.map((series) => {
    const key = make("span", { className: "series-key" });
    key.style.borderTopColor = series.color;
    key.style.borderTopStyle = { none: "solid", "2 3": "dotted" }[series.dash] ?? "dashed";
    const button = make("button", { type: "button", className: "class series-button", dataset: { series: series.class }, "aria-pressed": String(isDrawn(series)) },
      key, make("span", {}, series.class), make("span", { className: "series-value" }));
    button.addEventListener("click", () => {
      chosen.set(series.class, !isDrawn(series));
      show();
    });
    return make("li", {}, button);
  }));
  showValues();
  if (focused !== undefined) box.querySelector(`[data-series="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

/** The values under the pointer, otherwise the means of the range. */
function showValues() {
  if (!answer) return;
  setText(byId("shares-moment"), pointed === null ? "Mean of the time shown" : moment(pointed));
  for (const button of byId("shares-legend").querySelectorAll("button")) {
    const series = answer.series.find((entry) => entry.class === button.dataset.series);
    const point = pointed === null ? null : nearest(series.points, pointed, 1000 * answer.step_s);
    const text = pointed !== null ? (point ? valueText(point) : "–") : series.points.length > 0 ? percent(total(series) / series.points.length) : "–";
    setText(button.querySelector(".series-value"), text);
  }
}

/* ---- The table ---- */

/** Means and maxima over parts of the range. */
function showTable(list) {
  const [from, to] = [time(answer.from), time(answer.to)];
  const part = (to - from) / TABLE_ROWS;
  const drawn = list.filter(isDrawn);
  const rows = [];
  for (let at = TABLE_ROWS - 1; at >= 0; at -= 1) {
    const [start, end] = [from + at * part, from + (at + 1) * part];
    const cells = drawn.map(({ points }) => {
      const inside = points.filter(([when]) => when >= start && when < end);
      if (inside.length === 0) return "–";
      const mean = inside.reduce((sum, [, value]) => sum + value, 0) / inside.length;
      return `${percent(mean)} (${percent(Math.max(...inside.map(([, , most]) => most)))})`;
    });
    if (cells.every((cell) => cell === "–")) continue;
    rows.push(make("tr", {}, make("th", { scope: "row" }, moment(start)), ...cells.map((cell) => make("td", {}, cell))));
  }
  const head = make("tr", {}, make("th", { scope: "col" }, "From"), ...drawn.map((series) => make("th", { scope: "col" }, series.class)));
  byId("shares-table").replaceChildren(
    make("caption", {}, `Shares of classes in ${zone ?? "the whole frame"}: mean (maximum)`),
    make("thead", {}, head), make("tbody", {}, ...rows));
}

/* ---- Controls ---- */

byId("shares-range").replaceChildren(rangeChoice("shares-range", (next) => choose(zone, next)));
byId("shares-chart").append(chart.root);
byId("shares-zone").addEventListener("change", () => {
  const { value } = byId("shares-zone");
  choose(value === "" ? null : value.slice(1), length);
});
// The colours depend on the theme.
new MutationObserver(show).observe(document.documentElement, { attributeFilter: ["data-theme"] });
