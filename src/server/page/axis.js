/* Time axes and ranges, for the timeline and the chart. */
import { make, svg } from "./dom.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** The ranges that can be chosen, with their lengths in milliseconds. */
export const RANGES = { hour: HOUR, day: DAY, week: 7 * DAY };

const STEPS = [MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY];
/** Least distance of two labels in pixels. */
const LEAST_DISTANCE = 76;
const HALF_LABEL = 30;

/** Times of the local clock to mark, at most one for every `LEAST_DISTANCE` pixels of `width`: `[milliseconds, label]`. */
export function ticks(from, to, width) {
  const most = Math.max(width / LEAST_DISTANCE, 1);
  const step = STEPS.find((size) => (to - from) / size <= most) ?? STEPS.at(-1);
  const midnight = new Date(from);
  midnight.setHours(0, 0, 0, 0);
  const found = [];
  // From each midnight on: days with a change of the clock have 23 or 25 hours.
  for (let day = new Date(midnight); day <= to; day.setDate(day.getDate() + Math.max(step / DAY, 1))) {
    const next = new Date(day);
    next.setDate(next.getDate() + 1);
    for (let at = day.getTime(); at < next && at <= to; at += step) {
      if (at < from) continue;
      const isDay = at === day.getTime();
      const time = new Date(at);
      found.push([at, isDay ? time.toLocaleDateString(undefined, { weekday: "short", day: "numeric" }) : time.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" })]);
    }
  }
  return found;
}

/** Draws the axis: lines from `top` to `bottom`, and labels below. `x` is the place of a time in pixels. */
export function timeAxis({ from, to, left, right, top, bottom }) {
  const x = (at) => left + (right - left) * (at - from) / (to - from);
  const parts = ticks(from, to, right - left).flatMap(([at, label]) => {
    const place = x(at).toFixed(1);
    const line = svg("line", { class: "axis-line", x1: place, x2: place, y1: top, y2: bottom });
    // A label that would be cut is left out.
    const isCut = x(at) < HALF_LABEL || x(at) > right - HALF_LABEL;
    return isCut ? [line] : [line, svg("text", { class: "axis-label", x: place, y: bottom + 16, "text-anchor": "middle", text: label })];
  });
  return { x, parts };
}

/** Buttons to choose a range. `onChange` gets its length in milliseconds. */
export function rangeChoice(name, onChange) {
  const group = make("div", { className: "segments ranges", role: "radiogroup", "aria-label": "Range" });
  for (const [range, length] of Object.entries(RANGES)) {
    const input = make("input", { type: "radio", name, value: range, checked: range === "hour" });
    input.addEventListener("change", () => onChange(length));
    group.append(make("label", {}, input, make("span", {}, range[0].toUpperCase() + range.slice(1))));
  }
  return group;
}
