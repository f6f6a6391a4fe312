/* The timeline of events: a lane for each rule. It is drawn for pointers; the list below it has the same events for all. */
import { make, svg } from "./dom.js";
import { timeAxis } from "./axis.js";
import { percent, timeOfDay } from "./words.js";

const LANE = 30;
const NAME = 16;
const AXIS = 22;
/** Least width of a mark, so that it can be hit. */
const LEAST_WIDTH = 6;

export class Timeline {
  #onOpen;
  #width = 0;
  #content = null;
  #svg = svg("svg", { class: "timeline-drawing", role: "img" });

  /** `onOpen` is called with the event that was clicked. */
  constructor(onOpen) {
    this.#onOpen = onOpen;
    this.root = make("div", { className: "timeline" }, this.#svg);
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width === this.#width) return;
      this.#width = contentRect.width;
      this.#draw();
    }).observe(this.root);
  }

  /** Shows events between two times (milliseconds); `rules` are the names of the lanes without events. */
  show(events, { from, to, rules }) {
    this.#content = { events, from, to, rules };
    this.#draw();
  }

  #draw() {
    if (this.#content === null || this.#width === 0) return;
    const { events, from, to, rules } = this.#content;
    const lanes = [...new Set([...rules, ...events.map((event) => event.rule)])];
    const bottom = Math.max(lanes.length, 1) * LANE + 4;
    this.#svg.setAttribute("width", this.#width);
    this.#svg.setAttribute("height", bottom + AXIS);
    this.#svg.setAttribute("aria-label", `Timeline with ${events.length === 1 ? "1 event" : `${events.length} events`}, which are listed below`);
    const { x, parts } = timeAxis({ from, to, left: 0, right: this.#width, top: 0, bottom });
    lanes.forEach((lane, at) => {
      const y = at * LANE;
      parts.push(svg("line", { class: "lane-line", x1: 0, x2: this.#width, y1: y + LANE, y2: y + LANE }));
      parts.push(svg("text", { class: "lane-name", x: 4, y: y + NAME - 3, text: lane }));
      for (const event of events) if (event.rule === lane) parts.push(this.#mark(event, y + NAME, x, to));
    });
    this.#svg.replaceChildren(...parts);
  }

  #mark(event, y, x, to) {
    const start = new Date(event.start);
    const left = Math.max(x(start.getTime()), 0);
    const right = Math.min(x(event.end ? new Date(event.end).getTime() : to), this.#width);
    const width = Math.max(right - left, LEAST_WIDTH);
    const mark = svg("rect", {
      class: event.end ? "mark" : "mark lasting", x: Math.min(left, this.#width - width).toFixed(1), y, width: width.toFixed(1), height: LANE - NAME - 3, rx: 3,
    }, svg("title", { text: `${event.rule}, ${timeOfDay(start)}, peak ${percent(event.peak_share)}` }));
    mark.addEventListener("click", () => this.#onOpen(event));
    return mark;
  }
}
