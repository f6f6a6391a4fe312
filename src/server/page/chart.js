/* A line chart of shares over time. */
import { timeAxis } from "./axis.js";
import { make, svg } from "./dom.js";
import { percent } from "./words.js";

const HEIGHT = 220;
const LEFT = 46;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = HEIGHT - 24;

/** Upper ends of the axis of shares, and the distance of its lines. */
const SCALES = [[0.001, 0.0005], [0.002, 0.001], [0.005, 0.001], [0.01, 0.005], [0.02, 0.005], [0.05, 0.01], [0.1, 0.02], [0.2, 0.05], [0.3, 0.1], [0.4, 0.1], [0.6, 0.2], [0.8, 0.2], [1, 0.25]];

export class Chart {
  #width = 0;
  #content = null;
  #svg = svg("svg", { class: "chart-drawing", role: "img" });
  #onPoint;

  /** `onPoint` is called with the time under the pointer in milliseconds, and with null when there is none. */
  constructor(onPoint) {
    this.#onPoint = onPoint;
    this.root = make("div", { className: "chart" }, this.#svg);
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width === this.#width) return;
      this.#width = contentRect.width;
      this.#draw();
    }).observe(this.root);
    this.#svg.addEventListener("pointermove", (event) => this.#point(event));
    this.#svg.addEventListener("pointerdown", (event) => this.#point(event));
    this.#svg.addEventListener("pointerleave", () => this.#leave());
  }

  /**
   * Shows series of `{color, dash, points}` between two times; points are `[milliseconds, mean, maximum]`. A line ends where
   * points are further apart than one and a half `step` (milliseconds).
   */
  show(series, { from, to, step, label }) {
    this.#content = { series, from, to, step, label };
    this.#draw();
  }

  #draw() {
    if (this.#content === null || this.#width === 0) return;
    const { series, from, to, step, label } = this.#content;
    this.#svg.setAttribute("width", this.#width);
    this.#svg.setAttribute("height", HEIGHT);
    this.#svg.setAttribute("aria-label", label);
    const highest = Math.max(0, ...series.flatMap(({ points }) => points.map(([, mean]) => mean)));
    const [most, distance] = SCALES.find(([end]) => end >= highest) ?? SCALES.at(-1);
    const y = (share) => BOTTOM - (BOTTOM - TOP) * Math.min(share / most, 1);
    const right = this.#width - RIGHT;
    const { x, parts } = timeAxis({ from, to, left: LEFT, right, top: TOP, bottom: BOTTOM });
    for (let at = 0; at <= Math.round(most / distance); at += 1) {
      const place = y(at * distance).toFixed(1);
      parts.push(svg("line", { class: "axis-line", x1: LEFT, x2: right, y1: place, y2: place }));
      const text = `${Number((100 * at * distance).toFixed(2))} %`;
      parts.push(svg("text", { class: "axis-label", x: LEFT - 6, y: Number(place) + 4, "text-anchor": "end", text }));
    }
    for (const { color, dash, points } of series) {
      let path = "";
      let before = -Infinity;
      points.forEach(([at, mean], index) => {
        const isNext = at - before <= 1.5 * step;
        // A point between two gaps is a short line.
        const isAlone = !isNext && !(points[index + 1]?.[0] - at <= 1.5 * step);
        path += `${isNext ? "L" : "M"}${x(at).toFixed(1)} ${y(mean).toFixed(1)}${isAlone ? "h2" : ""}`;
        before = at;
      });
      if (path !== "") parts.push(svg("path", { class: "series", d: path, stroke: color, "stroke-dasharray": dash }));
    }
    this.#svg.replaceChildren(...parts, svg("line", { class: "pointer-line unused", y1: TOP, y2: BOTTOM }));
  }

  #point({ clientX }) {
    if (this.#content === null) return;
    const { from, to } = this.#content;
    const at = clientX - this.#svg.getBoundingClientRect().left;
    const right = this.#width - RIGHT;
    if (at < LEFT || at > right) {
      this.#leave();
      return;
    }
    const line = this.#svg.querySelector(".pointer-line");
    line.setAttribute("x1", at);
    line.setAttribute("x2", at);
    line.classList.remove("unused");
    this.#onPoint(from + (to - from) * (at - LEFT) / (right - LEFT));
  }

  #leave() {
    this.#svg.querySelector(".pointer-line")?.classList.add("unused");
    this.#onPoint(null);
  }
}

/** The point nearest to a time, if it is at most `step` away. */
export function nearest(points, at, step) {
  const found = points.reduce((best, point) => (best === null || Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best), null);
  return found && Math.abs(found[0] - at) <= step ? found : null;
}

/** "12.4 %, at most 15 %" */
export const valueText = ([, mean, most]) => (most > mean + 0.0005 ? `${percent(mean)}, at most ${percent(most)}` : percent(mean));
