/* The polygon of a new zone while it is drawn, by clicks and taps or by keys. */
import { announce, setAttribute, svg } from "./dom.js";
import { FEWEST, MOST, arrow, corner, isEmpty, place } from "./polygon.js";

/** A click this close to the first corner closes the polygon, in pixels. */
const CLOSE_PX = 16;
/** A second click this close to the last corner, as a double click makes, adds none. */
const SAME_PX = 6;

const HELP = "New zone. Arrows move the cross, Space sets a corner, Delete removes the last one, Enter closes the zone, Escape cancels";

export class ZoneDraft {
  #view;
  #onEnd;
  /** The corners; null while nothing is drawn. */
  #corners = null;
  /** Where the pointer is, or the cross that keys move. */
  #cursor = null;
  #byKeys = false;
  #line = svg("polyline", { class: "draft-line" });
  #next = svg("polyline", { class: "draft-next" });
  #dots = svg("g");
  #cross = svg("path", { class: "draft-cross", d: "M-14 0h28M0-14v28" });

  /** `onEnd` is called with the polygon, or with null if it was cancelled. */
  constructor(view, onEnd) {
    [this.#view, this.#onEnd] = [view, onEnd];
    this.root = svg("g", { class: "draft" }, this.#line, this.#next, this.#dots, this.#cross);
  }

  get isOpen() {
    return this.#corners !== null;
  }

  open() {
    [this.#corners, this.#cursor, this.#byKeys] = [[], null, false];
    setAttribute(this.#view.root, "tabindex", 0);
    setAttribute(this.#view.root, "role", "application");
    setAttribute(this.#view.root, "aria-label", HELP);
  }

  #end(polygon) {
    this.#corners = null;
    this.#view.root.removeAttribute("tabindex");
    setAttribute(this.#view.root, "role", "group");
    setAttribute(this.#view.root, "aria-label", "Zones");
    this.#onEnd(polygon);
  }

  cancel() {
    if (this.isOpen) this.#end(null);
  }

  close() {
    if (!this.isOpen) return;
    if (this.#corners.length < FEWEST) announce(`A zone has at least ${FEWEST} corners`);
    else if (isEmpty(this.#corners)) announce("This zone covers nothing");
    else this.#end(this.#corners);
  }

  removeLast() {
    const last = this.#corners?.pop();
    if (last) announce(`Corner removed, ${this.#corners.length} are left`);
    this.render();
  }

  #add(at) {
    if (this.#corners.length >= MOST) {
      announce(`A zone has at most ${MOST} corners`);
      return;
    }
    this.#corners.push(at);
    announce(`Corner ${this.#corners.length} at ${place(at)}`);
    this.render();
  }

  #distance(a, b) {
    const [[x, y], [x2, y2]] = [this.#view.toScreen(a), this.#view.toScreen(b)];
    return Math.hypot(x2 - x, y2 - y);
  }

  #isAtStart(at) {
    return this.#corners.length >= FEWEST && this.#distance(at, this.#corners[0]) < CLOSE_PX;
  }

  onMove(event) {
    [this.#cursor, this.#byKeys] = [this.#view.placeOf(event), false];
    this.render();
  }

  onClick(event) {
    const at = this.#view.placeOf(event);
    if (this.#isAtStart(at)) this.close();
    else if (this.#corners.length === 0 || this.#distance(at, this.#corners.at(-1)) > SAME_PX) this.#add(at);
  }

  /** Returns whether the key was handled. */
  onKey(event) {
    const distance = arrow(event);
    if (distance) {
      const [x, y] = this.#cursor ?? this.#corners.at(-1) ?? [0.5, 0.5];
      [this.#cursor, this.#byKeys] = [corner(x + distance[0], y + distance[1]), true];
      this.render();
    } else if (event.key === " ") {
      this.#byKeys = true;
      this.#cursor ??= [0.5, 0.5];
      if (this.#isAtStart(this.#cursor)) this.close();
      else this.#add(this.#cursor);
    } else if (event.key === "Enter") this.close();
    else if (event.key === "Escape") this.cancel();
    else if (event.key === "Delete" || event.key === "Backspace") this.removeLast();
    else return false;
    return true;
  }

  render() {
    this.root.classList.toggle("unused", !this.isOpen);
    if (!this.isOpen) return;
    const corners = this.#corners;
    const closes = this.#cursor !== null && this.#isAtStart(this.#cursor);
    setAttribute(this.#line, "points", this.#view.points(corners));
    const next = corners.length > 0 && this.#cursor ? [corners.at(-1), closes ? corners[0] : this.#cursor] : [];
    setAttribute(this.#next, "points", this.#view.points(next));
    this.#dots.replaceChildren(...corners.map((at, index) => {
      const [cx, cy] = this.#view.toScreen(at);
      return svg("circle", { class: index === 0 && closes ? "dot closing" : "dot", r: index === 0 ? 8 : 6, cx: cx.toFixed(1), cy: cy.toFixed(1) });
    }));
    this.#cross.classList.toggle("unused", !this.#byKeys);
    const [x, y] = this.#view.toScreen(this.#cursor ?? [0.5, 0.5]);
    setAttribute(this.#cross, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  }
}
