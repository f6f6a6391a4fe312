/*
 * Draws a frame with its label: zoom, pan, opacity, the proposal and differences from it. Places are those of pixels of the frame.
 */
import { VOID } from "./label-mask.js";

const MOST_ZOOM = 32;
/** Pixels of the frame that stay visible at the border when it is moved away, in CSS pixels. */
const KEPT = 48;

const hex = (color) => [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));
/** A colour as a number in the byte order of image data. Browsers run on little-endian computers only. */
const packed = ([r, g, b], alpha = 255) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;

export class LabelView {
  #canvas;
  #context;
  #image = null;
  #mask = null;
  #proposal = null;
  /** The colours of the mask, as large as the frame. */
  #layer = document.createElement("canvas");
  #layerContext = this.#layer.getContext("2d");
  #edges = null;
  #lut = new Uint32Array(256);
  #scale = 1;
  #offset = [0, 0];
  #fitted = true;
  #frame = null;
  #changed = null;
  /** What is drawn: "label", "proposal" or "difference". */
  #shown = "label";
  opacity = 0.5;
  /** Draws marks of the tool above the picture: called with the context and the view. */
  drawMarks = () => {};
  /** Whether the borders of superpixels are shown. */
  showsEdges = false;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    new ResizeObserver(() => this.#resize()).observe(canvas);
  }

  get scale() {
    return this.#scale;
  }

  get shown() {
    return this.#shown;
  }

  /** Shows a frame. `image` is a bitmap, `mask` a LabelMask, `proposal` its pixels as the model made them. */
  open(image, mask, proposal, colors) {
    [this.#image, this.#mask, this.#proposal, this.#edges, this.#shown] = [image, mask, proposal, null, "label"];
    [this.#layer.width, this.#layer.height] = [mask.width, mask.height];
    this.#lut.fill(packed([255, 0, 255]));
    colors.forEach((color, at) => (this.#lut[at] = packed(hex(color))));
    this.#fitted = true;
    this.#resize();
    this.update();
  }

  /** Shows nothing. */
  close() {
    [this.#image, this.#mask, this.#proposal, this.#edges, this.#changed] = [null, null, null, null, null];
    this.#context.setTransform(1, 0, 0, 1, 0, 0);
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
  }

  /** Sets what is drawn. */
  show(what) {
    if (what === this.#shown) return;
    this.#shown = what;
    this.update();
  }

  /** Draws the label again where it has changed; without a rectangle everywhere. */
  update(rect = null) {
    if (!this.#mask) return;
    const all = { left: 0, top: 0, right: this.#mask.width, bottom: this.#mask.height };
    const part = rect ?? all;
    const before = this.#changed;
    this.#changed = before
      ? { left: Math.min(before.left, part.left), top: Math.min(before.top, part.top), right: Math.max(before.right, part.right), bottom: Math.max(before.bottom, part.bottom) }
      : part;
    this.redraw();
  }

  redraw() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#draw();
    });
  }

  /** The borders of superpixels, which are drawn while `showsEdges` is set. */
  setParts(parts) {
    const { width, height } = this.#mask;
    this.#edges = document.createElement("canvas");
    [this.#edges.width, this.#edges.height] = [width, height];
    const data = new ImageData(width, height);
    const pixels = new Uint32Array(data.data.buffer);
    for (let at = 0; at < parts.length; at += 1) {
      const isEdge = (at % width < width - 1 && parts[at] !== parts[at + 1]) || (at + width < parts.length && parts[at] !== parts[at + width]);
      if (isEdge) pixels[at] = packed([255, 255, 255], 150);
    }
    this.#edges.getContext("2d").putImageData(data, 0, 0);
    this.redraw();
  }

  /* ---- Zoom and pan ---- */

  #resize() {
    const { width, height } = this.#canvas.getBoundingClientRect();
    if (width === 0 || !this.#mask) return;
    const ratio = window.devicePixelRatio || 1;
    [this.#canvas.width, this.#canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.#fitted) this.fit();
    else this.#limit();
    this.redraw();
  }

  #size() {
    const { width, height } = this.#canvas.getBoundingClientRect();
    return [width, height];
  }

  #least() {
    const [width, height] = this.#size();
    return Math.min(width / this.#mask.width, height / this.#mask.height);
  }

  /** Shows the whole frame. */
  fit() {
    if (!this.#mask) return;
    const [width, height] = this.#size();
    this.#scale = this.#least();
    this.#offset = [(width - this.#mask.width * this.#scale) / 2, (height - this.#mask.height * this.#scale) / 2];
    this.#fitted = true;
    this.redraw();
  }

  /** Multiplies the zoom by `factor`, so that the place at `[x, y]` of the canvas stays where it is. */
  zoom(factor, [x, y]) {
    const least = this.#least();
    const scale = Math.max(least, Math.min(MOST_ZOOM, this.#scale * factor));
    const ratio = scale / this.#scale;
    this.#offset = [x - (x - this.#offset[0]) * ratio, y - (y - this.#offset[1]) * ratio];
    this.#scale = scale;
    this.#fitted = false;
    if (scale === least) this.fit();
    else this.#limit();
    this.redraw();
  }

  zoomAtMiddle(factor) {
    const [width, height] = this.#size();
    this.zoom(factor, [width / 2, height / 2]);
  }

  pan([dx, dy]) {
    this.#offset = [this.#offset[0] + dx, this.#offset[1] + dy];
    this.#fitted = false;
    this.#limit();
    this.redraw();
  }

  #limit() {
    const size = this.#size();
    const frame = [this.#mask.width * this.#scale, this.#mask.height * this.#scale];
    this.#offset = this.#offset.map((value, axis) => Math.min(size[axis] - KEPT, Math.max(KEPT - frame[axis], value)));
  }

  /** Moves the frame so that this place of it is visible. */
  reveal([x, y]) {
    const size = this.#size();
    const at = this.toCanvas([x, y]);
    const by = at.map((value, axis) => (value < 0 ? -value + KEPT : value > size[axis] ? size[axis] - value - KEPT : 0));
    if (by.some((value) => value !== 0)) this.pan(by);
  }

  toCanvas([x, y]) {
    return [this.#offset[0] + x * this.#scale, this.#offset[1] + y * this.#scale];
  }

  /** The place in the frame of a pointer event. */
  placeOf({ clientX, clientY }) {
    const { left, top } = this.#canvas.getBoundingClientRect();
    return [(clientX - left - this.#offset[0]) / this.#scale, (clientY - top - this.#offset[1]) / this.#scale];
  }

  /** The place in the canvas of a pointer event, in CSS pixels. */
  pointOf({ clientX, clientY }) {
    const { left, top } = this.#canvas.getBoundingClientRect();
    return [clientX - left, clientY - top];
  }

  /* ---- Drawing ---- */

  /** Void is drawn as a chequered pattern, so that it differs from each class. */
  #color(value, x, y) {
    return value === VOID ? ((x >> 2) ^ (y >> 2)) & 1 ? 0xffe6e6e6 : 0xff303030 : this.#lut[value];
  }

  #paint() {
    const rect = this.#changed;
    this.#changed = null;
    if (!rect) return;
    const [width, height] = [rect.right - rect.left, rect.bottom - rect.top];
    const data = new ImageData(width, height);
    const to = new Uint32Array(data.data.buffer);
    const from = this.#shown === "proposal" ? this.#proposal : this.#mask.pixels;
    const isDifference = this.#shown === "difference";
    for (let y = rect.top; y < rect.bottom; y += 1) {
      for (let x = rect.left; x < rect.right; x += 1) {
        const at = y * this.#mask.width + x;
        if (isDifference && from[at] === this.#proposal[at]) continue;
        to[(y - rect.top) * width + x - rect.left] = this.#color(from[at], x, y);
      }
    }
    this.#layerContext.putImageData(data, rect.left, rect.top);
  }

  #draw() {
    if (!this.#mask) return;
    this.#paint();
    const ratio = window.devicePixelRatio || 1;
    const context = this.#context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    context.setTransform(ratio * this.#scale, 0, 0, ratio * this.#scale, ratio * this.#offset[0], ratio * this.#offset[1]);
    context.imageSmoothingEnabled = this.#scale < 2;
    context.drawImage(this.#image, 0, 0, this.#mask.width, this.#mask.height);
    // Without smoothing, so that the borders of the label are those of its pixels.
    context.imageSmoothingEnabled = false;
    context.globalAlpha = this.#shown === "difference" ? Math.max(0.7, this.opacity) : this.opacity;
    context.drawImage(this.#layer, 0, 0);
    context.globalAlpha = 1;
    if (this.showsEdges && this.#edges) context.drawImage(this.#edges, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawMarks(context, this);
  }
}
