/*
 * The editor of a label: tools, the class to draw with, undo, and the cursor that keys move. It knows nothing of the service: a
 * frame is given by `open`, and each change is reported by the event "change".
 */
import { announce } from "./dom.js";
import { LabelMask, VOID } from "./label-mask.js";
import { PointerControl, isPenEraser, pressureOf } from "./label-pointer.js";
import { LabelView } from "./label-view.js";

export const TOOLS = {
  brush: { key: "b", name: "Brush", help: "Draw with the class" },
  eraser: { key: "e", name: "Eraser", help: "Draw void: pixels that are not used for training" },
  polygon: { key: "p", name: "Polygon", help: "Click its corners; a click on the first one fills it" },
  fill: { key: "f", name: "Region", help: "Fill the connected region of one class" },
  superpixel: { key: "s", name: "Superpixel", help: "Fill a region of similar colour" },
  pick: { key: "i", name: "Pick", help: "Take the class of a pixel" },
  pan: { key: "h", name: "Move", help: "Move the frame" },
};

/** Diameters of the brush, in pixels of the frame. */
const SIZES = [1, 2, 3, 5, 8, 12, 18, 26, 38, 56, 80, 120, 180];
/** A click this near to the first corner closes a polygon, in CSS pixels. */
const CLOSE = 10;
/** Steps of the cursor by keys, in pixels of the frame. */
const STEP = 10;
/** Superpixels have about this many pixels in a side at a width of 1000. */
const SUPERPIXEL = 20;
const OPACITY_STEP = 0.1;

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class LabelEditor extends EventTarget {
  #canvas;
  #view;
  #mask = null;
  #proposal = null;
  #classes = [];
  #tool = "brush";
  #size = SIZES.indexOf(18);
  #value = 0;
  #cursor = null;
  /** Whether the cursor is that of the keys. */
  #byKeys = false;
  /** The last place of the line that is drawn; null while none is. */
  #last = null;
  #drawn = VOID;
  #corners = [];
  #image = null;
  #parts = null;
  #worker = null;
  #panFrom = null;
  /** The last place of a pointer that only moves. */
  #hovered = null;

  /** `canvas` is focusable, and has the keys of the editor. */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.#view = new LabelView(canvas);
    this.#view.drawMarks = (context) => this.#drawMarks(context);
    new PointerControl(canvas, this.#view, {
      start: (event) => this.#onStart(event), move: (event) => this.#onMove(event), end: () => this.#onEnd(),
      cancel: () => this.#cancelLine(), hover: (event) => this.#onHover(event),
    });
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
    canvas.addEventListener("keyup", (event) => this.#onKeyUp(event));
    canvas.addEventListener("blur", () => this.#onBlur());
  }

  /* ---- State ---- */

  get tool() { return this.#tool; }
  get size() { return SIZES[this.#size]; }
  get sizeStep() { return this.#size; }
  get value() { return this.#value; }
  get opacity() { return this.#view.opacity; }
  get shown() { return this.#view.shown; }
  get canUndo() { return this.#mask?.canUndo ?? false; }
  get canRedo() { return this.#mask?.canRedo ?? false; }
  get corners() { return this.#corners.length; }
  /** The pixels of the label, which change while it is edited; null without a frame. */
  get pixels() { return this.#mask?.pixels ?? null; }
  static get sizes() { return SIZES; }

  /**
   * Shows a frame. `image` is a bitmap, `pixels` the label, `proposal` that of the model; `classes` have a name and a colour
   * (`#rrggbb`).
   */
  open({ image, width, height, pixels, proposal, classes }) {
    this.close();
    [this.#image, this.#proposal, this.#classes] = [image, proposal, classes];
    this.#mask = new LabelMask(width, height, pixels);
    this.#value = Math.min(this.#value, classes.length - 1);
    this.#cursor = [Math.floor(width / 2) + 0.5, Math.floor(height / 2) + 0.5];
    this.#view.open(image, this.#mask, proposal, classes.map(({ color }) => color));
    this.#report();
  }

  close() {
    this.#worker?.terminate();
    this.#view.close();
    this.#image?.close();
    [this.#worker, this.#parts, this.#last, this.#corners, this.#mask, this.#image] = [null, null, null, [], null, null];
  }

  setTool(tool) {
    this.#endLine();
    if (tool !== "polygon") this.#corners = [];
    this.#tool = tool;
    this.#view.showsEdges = tool === "superpixel";
    if (tool === "superpixel") this.#computeParts();
    this.#view.redraw();
    this.#report();
  }

  /** Sets the class to draw with, by its index; VOID for none. */
  setValue(value) {
    if (value !== VOID && !this.#classes[value]) return;
    this.#value = value;
    if (this.#tool === "eraser" || this.#tool === "pick" || this.#tool === "pan") this.setTool("brush");
    this.#view.redraw();
    this.#report();
    announce(`Class ${this.nameOf(value)}`);
  }

  setSizeStep(step) {
    this.#size = Math.max(0, Math.min(SIZES.length - 1, step));
    this.#view.redraw();
    this.#report();
  }

  setOpacity(opacity) {
    this.#view.opacity = Math.max(0, Math.min(1, Math.round(opacity * 100) / 100));
    this.#view.redraw();
    this.#report();
  }

  /** Shows the "label", the "proposal" or the "difference" of both. */
  show(what) {
    this.#view.show(what);
    this.#report();
  }

  zoom(factor) { this.#view.zoomAtMiddle(factor); }
  fit() { this.#view.fit(); }
  nameOf(value) { return value === VOID ? "void" : this.#classes[value]?.name ?? `number ${value}`; }

  #report() {
    this.dispatchEvent(new Event("state"));
  }

  /* ---- Changes ---- */

  undo() { this.#restore(this.#mask?.undo(), "Undone", "Nothing to undo"); }
  redo() { this.#restore(this.#mask?.redo(), "Redone", "Nothing to redo"); }

  #restore(rect, done, nothing) {
    announce(rect ? done : nothing);
    if (rect) this.#changed(rect);
  }

  /** Replaces the label as one change, which can be undone. */
  replace(pixels) {
    this.#apply(() => this.#mask.replace(pixels));
  }

  revert() {
    this.replace(this.#proposal);
  }

  #apply(draw) {
    this.#endLine();
    this.#mask.begin();
    const rect = draw();
    const isChanged = this.#mask.end();
    if (isChanged) this.#changed(rect);
    return isChanged;
  }

  #changed(rect) {
    this.#view.update(rect);
    this.#report();
    this.dispatchEvent(new Event("change"));
  }

  #drawValue(event) {
    return this.#tool === "eraser" || (event && isPenEraser(event)) ? VOID : this.#value;
  }

  /* ---- Tools ---- */

  #isBrush() { return this.#tool === "brush" || this.#tool === "eraser"; }

  #startLine(at, value, pressure = 1) {
    this.#mask.begin();
    [this.#last, this.#drawn] = [at, value];
    this.#view.update(this.#mask.line(at, at, (this.size * pressure) / 2, value) ?? undefined);
  }

  #lineTo(at, pressure = 1) {
    const rect = this.#mask.line(this.#last, at, (this.size * pressure) / 2, this.#drawn);
    this.#last = at;
    if (rect) this.#view.update(rect);
  }

  #endLine() {
    if (this.#last === null) return;
    this.#last = null;
    if (this.#mask.end()) {
      this.#report();
      this.dispatchEvent(new Event("change"));
    }
  }

  #cancelLine() {
    this.#panFrom = null;
    if (this.#last === null) return;
    this.#last = null;
    const rect = this.#mask.cancel();
    if (rect) this.#view.update(rect);
  }

  /** Applies a tool that works at one place. */
  #useAt(at, event) {
    if (this.#tool === "pick") {
      this.setValue(this.#mask.at(...at));
    } else if (this.#tool === "fill") {
      this.#apply(() => this.#mask.fill(...at, this.#drawValue(event)));
    } else if (this.#tool === "superpixel") {
      if (this.#parts) this.#apply(() => this.#mask.fillPart(this.#parts, ...at, this.#drawValue(event)));
      else announce("The superpixels are not computed yet");
    } else if (this.#tool === "polygon") {
      const first = this.#corners[0];
      const distance = first ? Math.hypot(at[0] - first[0], at[1] - first[1]) * this.#view.scale : Infinity;
      if (this.#corners.length > 2 && distance < CLOSE) this.closePolygon();
      else this.#corners.push(at);
      this.#view.redraw();
      this.#report();
    }
  }

  /** Fills the polygon that is drawn. */
  closePolygon() {
    const corners = this.#corners;
    this.#corners = [];
    if (corners.length > 2) this.#apply(() => this.#mask.polygon(corners, this.#drawValue()));
    else announce("A polygon needs three corners");
    this.#view.redraw();
    this.#report();
  }

  /** Takes the last corner of the polygon back, or all. Returns whether there was one. */
  removeCorners(all = false) {
    if (this.#corners.length === 0) return false;
    this.#corners.length = all ? 0 : this.#corners.length - 1;
    this.#view.redraw();
    this.#report();
    return true;
  }

  #computeParts() {
    if (this.#parts || this.#worker || !this.#mask) return;
    const { width, height } = this.#mask;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.#image, 0, 0, width, height);
    const rgba = context.getImageData(0, 0, width, height).data;
    this.#worker = new Worker("/page/superpixels-worker.js", { type: "module" });
    this.#worker.addEventListener("message", ({ data }) => {
      this.#worker.terminate();
      [this.#worker, this.#parts] = [null, data];
      this.#view.setParts(data);
      announce("The superpixels are computed");
      this.#report();
    });
    this.#worker.addEventListener("error", () => {
      this.#worker = null;
      announce("The superpixels cannot be computed");
    });
    this.#worker.postMessage({ rgba, width, height, size: Math.max(6, (SUPERPIXEL * width) / 1000) }, [rgba.buffer]);
  }

  /** Whether superpixels can be filled. */
  get hasParts() { return this.#parts !== null; }

  /* ---- Pointer ---- */

  #onStart(event) {
    if (!this.#mask) return;
    this.#endLine();
    this.#byKeys = false;
    this.#hovered = `${event.clientX} ${event.clientY}`;
    const at = this.#view.placeOf(event);
    this.#cursor = at;
    if (this.#tool === "pan") this.#panFrom = this.#view.pointOf(event);
    else if (event.altKey) this.setValue(this.#mask.at(...at));
    else if (this.#isBrush()) this.#startLine(at, this.#drawValue(event), pressureOf(event));
    else this.#useAt(at, event);
  }

  #onMove(event) {
    if (!this.#mask) return;
    const at = this.#view.placeOf(event);
    [this.#cursor, this.#hovered] = [at, `${event.clientX} ${event.clientY}`];
    if (this.#panFrom) {
      const now = this.#view.pointOf(event);
      this.#view.pan([now[0] - this.#panFrom[0], now[1] - this.#panFrom[1]]);
      this.#panFrom = now;
    } else if (this.#last) {
      this.#lineTo(at, pressureOf(event));
    } else if (this.#tool === "superpixel" && this.#parts && !event.altKey && this.#mask.at(...at) !== this.#drawValue(event)) {
      this.#useAt(at, event);
    }
  }

  #onEnd() {
    this.#panFrom = null;
    this.#endLine();
  }

  #onHover(event) {
    // Browsers also report a pointer that rests when the page below it changes: the cursor of the keys stays then.
    const place = event && `${event.clientX} ${event.clientY}`;
    if (!place || place === this.#hovered) return;
    [this.#hovered, this.#byKeys] = [place, false];
    this.#cursor = this.#view.placeOf(event);
    this.#view.redraw();
  }

  /* ---- Keys ---- */

  #onKey(event) {
    if (!this.#mask) return;
    const isControl = event.ctrlKey || event.metaKey;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (isControl && !event.altKey && (key === "z" || key === "y")) {
      if (key === "y" || event.shiftKey) this.redo();
      else this.undo();
    } else if (isControl || event.altKey || event.metaKey || !this.#onPlainKey(key, event)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** Returns whether the key has a meaning. */
  #onPlainKey(key, event) {
    const step = ARROWS[key];
    const tool = Object.keys(TOOLS).find((name) => TOOLS[name].key === key);
    if (step) this.#moveCursor(step, event.shiftKey ? 1 : STEP);
    else if (key === " ") this.#onSpace();
    else if (key === "Enter" && this.#tool === "polygon") this.closePolygon();
    else if (key === "Enter") this.#onEnter();
    else if (key === "Backspace" || key === "Delete") return this.removeCorners();
    else if (key === "Escape") return this.#onEscape();
    else if (key === "0" && !event.shiftKey) this.setValue(VOID);
    else if (/^[1-9]$/.test(key) && !event.shiftKey) this.setValue(Number(key) - 1);
    else if (event.shiftKey && /^[a-z]$/.test(key)) this.setValue(key.charCodeAt(0) - "a".charCodeAt(0) + 9);
    else if (tool) this.setTool(tool);
    else if (key === "[") this.setSizeStep(this.#size - 1);
    else if (key === "]") this.setSizeStep(this.#size + 1);
    else if (key === ",") this.setOpacity(this.opacity - OPACITY_STEP);
    else if (key === ".") this.setOpacity(this.opacity + OPACITY_STEP);
    else if (key === "+" || key === "=") this.#zoomByKey(1.5);
    else if (key === "-") this.#zoomByKey(1 / 1.5);
    else if (key === "z" || key === "Home") this.fit();
    else if (key === "c") this.show("proposal");
    else if (key === "d") this.show(this.shown === "difference" ? "label" : "difference");
    else return false;
    return true;
  }

  #onKeyUp(event) {
    if (event.key.toLowerCase() === "c" && this.shown === "proposal") this.show("label");
  }

  #onBlur() {
    this.#endLine();
    if (this.shown === "proposal") this.show("label");
  }

  #zoomByKey(factor) {
    if (this.#byKeys) this.#view.zoom(factor, this.#view.toCanvas(this.#cursor));
    else this.zoom(factor);
  }

  /** Space puts the brush down and lifts it; with other tools it is a click. */
  #onSpace() {
    this.#byKeys = true;
    if (!this.#isBrush()) {
      this.#useAt(this.#cursor, null);
      this.#sayPlace();
    } else if (this.#last) {
      this.#endLine();
      announce("Brush lifted");
    } else {
      this.#startLine(this.#cursor, this.#drawValue());
      announce("Brush down: arrows draw, Space lifts it");
    }
  }

  #onEnter() {
    this.#byKeys = true;
    if (this.#isBrush()) {
      if (!this.#last) this.#startLine(this.#cursor, this.#drawValue());
      this.#endLine();
    } else {
      this.#useAt(this.#cursor, null);
    }
    this.#sayPlace();
  }

  #onEscape() {
    if (this.#last) {
      this.#cancelLine();
      announce("The line is removed");
      return true;
    }
    return this.removeCorners(true);
  }

  #moveCursor([dx, dy], pixels) {
    if (!this.#byKeys) this.#cursor = this.#cursor.map((value) => Math.floor(value) + 0.5);
    this.#byKeys = true;
    const { width, height } = this.#mask;
    const [x, y] = [this.#cursor[0] + dx * pixels, this.#cursor[1] + dy * pixels];
    this.#cursor = [Math.max(0.5, Math.min(width - 0.5, x)), Math.max(0.5, Math.min(height - 0.5, y))];
    if (this.#last) this.#lineTo(this.#cursor);
    this.#view.reveal(this.#cursor);
    this.#view.redraw();
    this.#sayPlace();
  }

  #sayPlace() {
    const [x, y] = this.#cursor.map(Math.floor);
    announce(`${x}, ${y}: ${this.nameOf(this.#mask.at(x, y))}`);
  }

  /* ---- Marks ---- */

  #drawMarks(context) {
    const view = this.#view;
    if (this.#corners.length > 0) this.#drawPolygon(context);
    if (!this.#cursor || this.#tool === "pan") return;
    const [x, y] = view.toCanvas(this.#cursor);
    const radius = this.#isBrush() ? Math.max(1.5, (this.size / 2) * view.scale) : 5;
    // Two colours, so that the mark is visible on every picture.
    for (const [width, color] of [[3, "#000000"], [1.5, "#ffffff"]]) {
      context.lineWidth = width;
      context.strokeStyle = color;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      if (this.#byKeys) for (const [dx, dy] of Object.values(ARROWS)) {
        context.moveTo(x + dx * (radius + 3), y + dy * (radius + 3));
        context.lineTo(x + dx * (radius + 13), y + dy * (radius + 13));
      }
      context.stroke();
    }
  }

  #drawPolygon(context) {
    const points = this.#corners.map((corner) => this.#view.toCanvas(corner));
    const all = [...points, this.#view.toCanvas(this.#cursor)];
    for (const [width, color] of [[4, "#000000"], [2, "#ffffff"]]) {
      context.lineWidth = width;
      context.strokeStyle = color;
      context.beginPath();
      all.forEach(([x, y], at) => (at === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
      context.stroke();
    }
    context.fillStyle = "#ffffff";
    for (const [x, y] of points) {
      context.beginPath();
      context.arc(x, y, 4, 0, 2 * Math.PI);
      context.fill();
      context.lineWidth = 1;
      context.strokeStyle = "#000000";
      context.stroke();
    }
  }
}
