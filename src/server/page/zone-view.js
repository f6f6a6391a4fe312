/*
 * The zones of a stream, drawn above its video. Operators select a zone and move it and its corners by mouse, touch and keys.
 *
 * The drawing is in CSS pixels: corners keep their size when the video is scaled.
 */
import { announce, setAttribute, svg } from "./dom.js";
import { FEWEST, MOST, arrow, between, corner, inserted, isEmpty, moved, place, same, top, withCorner, without } from "./polygon.js";
import { ZoneDraft } from "./zone-draft.js";

/** Moves by keys are committed together after this time without another one. */
const COMMIT_MS = 500;
/** Sides that are shorter have no handle for another corner, in pixels. */
const LEAST_SIDE = 44;

/** Adds or removes handles, which are numbered, until there are `count`. */
function fitHandles(group, kind, count) {
  while (group.childElementCount > count) group.lastElementChild.remove();
  while (group.childElementCount < count) {
    const handle = svg("g", { class: kind, dataset: { kind, at: group.childElementCount } },
      svg("circle", { class: "touch", r: 20 }), svg("circle", { class: "dot", r: kind === "corner" ? 7 : 4 }));
    if (kind === "middle") handle.setAttribute("aria-hidden", "true");
    else for (const [name, value] of [["tabindex", 0], ["role", "button"]]) handle.setAttribute(name, value);
    group.append(handle);
  }
}

export class ZoneView {
  #actions;
  #zones = [];
  #alarms = new Set();
  #editable = false;
  /** Name of the selected zone, whose corners are shown; null without one. */
  #selected = null;
  /** The polygon of the selected zone while it differs from the committed one; null otherwise. */
  #shape = null;
  #drag = null;
  /** Whether the pointer went down on the selected zone, so that its click does not end the selection. */
  #pressed = false;
  #timer = null;
  #size = [16, 9];
  #nodes = new Map();
  #middles = svg("g");
  #corners = svg("g");
  #draft;

  /**
   * The actions are called with the name of the zone: `select(name or null)`, `change(name, polygon, polygon before)`,
   * `remove(name)`; and `add(polygon or null)` when a new polygon is closed or cancelled.
   */
  constructor(actions) {
    this.#actions = actions;
    this.root = svg("svg", { class: "zones", role: "group", "aria-label": "Zones" });
    this.#draft = new ZoneDraft(this, (polygon) => this.#endDrawing(polygon));
    // Corners are above the handles in the middle of sides.
    this.root.append(this.#middles, this.#corners, this.#draft.root);
    new ResizeObserver(() => this.#render()).observe(this.root);
    for (const [type, action] of Object.entries({
      pointerdown: this.#onDown, pointermove: this.#onMove, pointerup: this.#onUp, pointercancel: this.#onCancel,
      click: this.#onClick, dblclick: this.#onDoubleClick, keydown: this.#onKey, focusout: this.#onBlur,
    })) this.root.addEventListener(type, action.bind(this));
    // A finger on a handle does not scroll. The style `touch-action` is not enough: Chromium ignores it for parts of an SVG.
    this.root.addEventListener("touchmove", (event) => {
      if (this.#drag && event.cancelable) event.preventDefault();
    }, { passive: false });
  }

  get selected() {
    return this.#selected;
  }

  get isDrawing() {
    return this.#draft.isOpen;
  }

  /** Shows these zones. `alarms` are the names of zones with an event; `[width, height]` is the size of the picture. */
  show(zones, { editable, alarms, size }) {
    this.#zones = zones;
    this.#editable = editable;
    this.#alarms = alarms;
    this.#size = size;
    if (this.#selected !== null && (!editable || !this.#find(this.#selected))) this.select(null);
    if (!editable && this.isDrawing) this.#draft.cancel();
    this.#render();
  }

  /** Shows the corners of a zone; null ends that. */
  select(name) {
    if (name === this.#selected) return;
    this.#commit();
    [this.#selected, this.#drag] = [name, null];
    this.#render();
    this.#actions.select(name);
  }

  focus(name) {
    this.#nodes.get(name)?.shape.focus();
  }

  startDrawing() {
    this.select(null);
    this.#draft.open();
    this.#render();
    this.root.focus({ preventScroll: true });
  }

  /** Ends drawing with the zone, if it is one, or without. */
  closeDrawing() {
    this.#draft.close();
  }

  cancelDrawing() {
    this.#draft.cancel();
  }

  removeLastCorner() {
    this.#draft.removeLast();
  }

  #endDrawing(polygon) {
    this.#render();
    this.#actions.add(polygon);
  }

  /* ---- Places ---- */

  /** The picture inside the element, as `object-fit: contain` places it. */
  #picture() {
    const { width, height } = this.root.getBoundingClientRect();
    const scale = Math.min(width / this.#size[0], height / this.#size[1]);
    const [w, h] = [this.#size[0] * scale, this.#size[1] * scale];
    return { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h };
  }

  toScreen([x, y]) {
    const box = this.#picture();
    return [box.x + x * box.width, box.y + y * box.height];
  }

  /** The place in the picture of a pointer; outside of the picture the next one inside. */
  placeOf({ clientX, clientY }) {
    const [box, { left, top: above }] = [this.#picture(), this.root.getBoundingClientRect()];
    return corner((clientX - left - box.x) / box.width, (clientY - above - box.y) / box.height);
  }

  points(polygon) {
    return polygon.map((at) => this.toScreen(at).map((value) => value.toFixed(1)).join(",")).join(" ");
  }

  /* ---- Drawing ---- */

  #find(name) {
    return this.#zones.find((zone) => zone.name === name);
  }

  #polygon(zone) {
    return zone.name === this.#selected && this.#shape ? this.#shape : zone.polygon;
  }

  #render() {
    if (this.root.getBoundingClientRect().width === 0) return;
    this.root.classList.toggle("drawing", this.isDrawing);
    this.root.classList.toggle("editable", this.#editable);
    const names = new Set(this.#zones.map((zone) => zone.name));
    for (const [name, node] of this.#nodes) {
      if (names.has(name)) continue;
      node.root.remove();
      this.#nodes.delete(name);
    }
    for (const zone of this.#zones) this.#renderZone(zone);
    this.#renderCorners();
    this.#draft.render();
  }

  #renderZone(zone) {
    let node = this.#nodes.get(zone.name);
    if (!node) {
      node = { shape: svg("polygon", { class: "zone-shape" }), label: svg("text", { class: "zone-name", "aria-hidden": "true", text: zone.name }) };
      node.root = svg("g", { class: "zone", dataset: { zone: zone.name } }, node.shape, node.label);
      this.#nodes.set(zone.name, node);
      this.root.insertBefore(node.root, this.#middles);
    }
    const polygon = this.#polygon(zone);
    const isSelected = zone.name === this.#selected;
    setAttribute(node.shape, "points", this.points(polygon));
    const [x, y] = this.toScreen(top(polygon));
    // Below the corner where there is no space above it.
    const isLow = y > 24;
    setAttribute(node.label, "y", (isLow ? y - 10 : y + 20).toFixed(1));
    const { width } = this.root.getBoundingClientRect();
    const anchor = x < width / 4 ? "start" : x > 0.75 * width ? "end" : "middle";
    setAttribute(node.label, "text-anchor", anchor);
    setAttribute(node.label, "x", (x + { start: 4, middle: 0, end: -4 }[anchor]).toFixed(1));
    node.root.classList.toggle("selected", isSelected);
    node.root.classList.toggle("dimmed", this.#selected !== null && !isSelected);
    node.root.classList.toggle("alarm", this.#alarms.has(zone.name));
    const hasFocus = this.#editable && !this.isDrawing && (this.#selected === null || isSelected);
    if (hasFocus) {
      setAttribute(node.shape, "tabindex", 0);
      setAttribute(node.shape, "role", "button");
      setAttribute(node.shape, "aria-pressed", isSelected);
      const help = isSelected ? "Arrows move it, Delete removes it" : "Enter shows its corners";
      setAttribute(node.shape, "aria-label", `Zone ${zone.name}, ${polygon.length} corners. ${help}`);
    } else {
      for (const name of ["tabindex", "aria-pressed"]) node.shape.removeAttribute(name);
      setAttribute(node.shape, "role", "img");
      setAttribute(node.shape, "aria-label", `Zone ${zone.name}`);
    }
  }

  /** The handles keep their elements, so that one that is dragged or focused stays so. */
  #renderCorners() {
    const zone = this.isDrawing || this.#selected === null ? null : this.#find(this.#selected);
    const polygon = zone ? this.#polygon(zone) : [];
    fitHandles(this.#middles, "middle", polygon.length);
    fitHandles(this.#corners, "corner", polygon.length);
    [...this.#corners.children].forEach((handle, at) => {
      const [x, y] = this.toScreen(polygon[at]);
      setAttribute(handle, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
      setAttribute(handle, "aria-label", `Corner ${at + 1} of ${polygon.length} at ${place(polygon[at])}`);
    });
    [...this.#middles.children].forEach((handle, at) => {
      const ends = [polygon[at], polygon[(at + 1) % polygon.length]];
      const [[x, y], [x2, y2]] = ends.map((end) => this.toScreen(end));
      const isShort = Math.hypot(x2 - x, y2 - y) < LEAST_SIDE || polygon.length >= MOST;
      handle.classList.toggle("unused", isShort);
      setAttribute(handle, "transform", `translate(${((x + x2) / 2).toFixed(1)} ${((y + y2) / 2).toFixed(1)})`);
    });
  }

  /* ---- Changes ---- */

  /** Reports the changed polygon of the selected zone, or takes it back if it covers nothing. */
  #commit() {
    clearTimeout(this.#timer);
    const [name, shape, zone] = [this.#selected, this.#shape, this.#find(this.#selected)];
    this.#shape = null;
    if (!shape || !zone || same(shape, zone.polygon)) return;
    if (isEmpty(shape)) announce(`Zone ${name} is as before: it would cover nothing`);
    else {
      const before = zone.polygon;
      // Shown until the action has replaced the zones.
      zone.polygon = shape;
      this.#actions.change(name, shape, before);
    }
    this.#render();
  }

  #revert() {
    clearTimeout(this.#timer);
    const had = this.#shape !== null || this.#drag !== null;
    [this.#shape, this.#drag] = [null, null];
    this.#render();
    return had;
  }

  /* ---- Pointer ---- */

  #onDown(event) {
    this.#pressed = false;
    if (!this.#editable || event.button !== 0 || this.isDrawing || this.#selected === null) return;
    const handle = event.target.closest("[data-kind]");
    const isShape = event.target.closest(".zone")?.dataset.zone === this.#selected;
    if (!handle && !isShape) return;
    this.#commit();
    let polygon = this.#find(this.#selected).polygon;
    const start = this.placeOf(event);
    let at = handle ? Number(handle.dataset.at) : null;
    if (handle?.dataset.kind === "middle") {
      polygon = inserted(polygon, at + 1, between(polygon[at], polygon[(at + 1) % polygon.length]));
      at += 1;
      this.#shape = polygon;
    }
    this.#pressed = true;
    this.#drag = { pointer: event.pointerId, polygon, at, start };
    this.root.setPointerCapture(event.pointerId);
    this.#render();
    if (at === null) this.focus(this.#selected);
    else this.#corners.querySelector(`.corner[data-at="${at}"]`).focus({ preventScroll: true });
    event.preventDefault();
  }

  #onMove(event) {
    if (this.isDrawing) {
      this.#draft.onMove(event);
      return;
    }
    if (this.#drag?.pointer !== event.pointerId) return;
    const { polygon, at, start } = this.#drag;
    const now = this.placeOf(event);
    const distance = [now[0] - start[0], now[1] - start[1]];
    // The corner keeps its distance from the pointer, which may be beside it.
    if (at === null) this.#shape = moved(polygon, distance);
    else this.#shape = withCorner(polygon, at, [polygon[at][0] + distance[0], polygon[at][1] + distance[1]]);
    this.#render();
  }

  #onUp(event) {
    if (this.#drag?.pointer !== event.pointerId) return;
    this.#drag = null;
    this.#commit();
  }

  #onCancel(event) {
    if (this.#drag?.pointer === event.pointerId) this.#revert();
  }

  #onClick(event) {
    if (this.isDrawing) {
      this.#draft.onClick(event);
      return;
    }
    const pressed = this.#pressed;
    this.#pressed = false;
    if (!this.#editable || pressed) return;
    this.select(event.target.closest(".zone")?.dataset.zone ?? (event.target.closest("[data-kind]") ? this.#selected : null));
  }

  #onDoubleClick(event) {
    if (this.isDrawing) this.#draft.close();
    // A double click elsewhere shows the video in full screen.
    else if (!this.#editable || !event.target.closest(".zone, [data-kind]")) return;
    event.stopPropagation();
  }

  /* ---- Keys ---- */

  #onKey(event) {
    if (!this.#editable || event.ctrlKey || event.altKey || event.metaKey) return;
    const isHandled = this.isDrawing ? this.#draft.onKey(event) : this.#onZoneKey(event);
    if (isHandled) event.preventDefault();
  }

  #onZoneKey(event) {
    const name = event.target.closest(".zone")?.dataset.zone ?? null;
    const at = event.target.closest(".corner")?.dataset.at ?? null;
    if (name === null && at === null) return false;
    if (event.key === "Enter" || event.key === " ") {
      // Enter shows the corners, and ends the changes of a zone.
      const ends = at !== null || name === this.#selected;
      const focused = name ?? this.#selected;
      this.select(ends ? null : name);
      this.focus(focused);
      return true;
    }
    if (name !== null && (event.key === "Delete" || event.key === "Backspace")) {
      this.#revert();
      this.#actions.remove(name);
      return true;
    }
    // An arrow does not change to another stream here.
    if (this.#selected === null) return arrow(event) !== null;
    if (event.key === "Escape") {
      const selected = this.#selected;
      if (this.#revert()) return true;
      this.select(null);
      this.focus(selected);
      return true;
    }
    const distance = arrow(event);
    const polygon = this.#shape ?? this.#find(this.#selected).polygon;
    if (distance && at !== null) {
      const [x, y] = polygon[Number(at)];
      this.#keep(withCorner(polygon, Number(at), [x + distance[0], y + distance[1]]));
    } else if (distance) {
      this.#keep(moved(polygon, distance));
    } else if (at !== null && (event.key === "Delete" || event.key === "Backspace")) {
      this.#removeCorner(polygon, Number(at));
    } else if (at !== null && (event.key === "+" || event.key === "Insert")) {
      this.#addCorner(polygon, Number(at));
    } else {
      return false;
    }
    return true;
  }

  /** Shows a change by a key, and commits it when no other one follows soon. */
  #keep(polygon) {
    this.#shape = polygon;
    this.#render();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#commit(), COMMIT_MS);
  }

  #removeCorner(polygon, at) {
    if (polygon.length <= FEWEST) {
      announce(`A zone has at least ${FEWEST} corners`);
      return;
    }
    this.#keep(without(polygon, at));
    this.#focusCorner(Math.min(at, polygon.length - 2));
    announce(`Corner removed, ${polygon.length - 1} are left`);
  }

  #addCorner(polygon, at) {
    if (polygon.length >= MOST) {
      announce(`A zone has at most ${MOST} corners`);
      return;
    }
    this.#keep(inserted(polygon, at + 1, between(polygon[at], polygon[(at + 1) % polygon.length])));
    this.#focusCorner(at + 1);
  }

  #focusCorner(at) {
    this.#corners.querySelector(`.corner[data-at="${at}"]`)?.focus({ preventScroll: true });
  }

  #onBlur() {
    if (!this.#drag) this.#commit();
  }
}
