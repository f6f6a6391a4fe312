/*
 * Pointers over the editor's canvas: one pointer draws, two fingers zoom and move the frame, the middle button and the right button
 * move it.
 */

/** Buttons of a pointer event. */
const MAIN = 0;
const PEN_ERASER = 5;

/** The brush of a pen without pressure has this share of its size. */
const LEAST_PRESSURE = 0.25;

/** The size of the brush for a pointer: a pen that reports its pressure changes it. */
export function pressureOf({ pointerType, pressure }) {
  return pointerType === "pen" && pressure > 0 ? LEAST_PRESSURE + (1 - LEAST_PRESSURE) * pressure : 1;
}

/**
 * Connects a canvas with its view and the actions `start(event)`, `move(event)`, `end(event)`, `cancel()` of a drawing pointer, and
 * `hover(event or null)` of a pointer that only moves.
 */
export class PointerControl {
  #view;
  #canvas;
  #actions;
  /** Places of the pointers that are down, by id. */
  #pointers = new Map();
  /** The pointer that draws; null without one. */
  #drawing = null;
  /** Whether the pointers move the frame. */
  #moves = false;

  constructor(canvas, view, actions) {
    [this.#canvas, this.#view, this.#actions] = [canvas, view, actions];
    for (const [type, action] of Object.entries({
      pointerdown: this.#onDown, pointermove: this.#onMove, pointerup: this.#onUp, pointercancel: this.#onCancel,
      pointerleave: this.#onLeave, contextmenu: (event) => event.preventDefault(),
    })) canvas.addEventListener(type, action.bind(this));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      // Trackpads report small steps, mouse wheels large ones; the unit may be lines.
      const step = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
      view.zoom(Math.exp(-Math.max(-300, Math.min(300, step)) / 300), view.pointOf(event));
    }, { passive: false });
  }

  #onDown(event) {
    if (!this.#pointers.has(event.pointerId)) this.#pointers.set(event.pointerId, this.#view.pointOf(event));
    this.#canvas.setPointerCapture(event.pointerId);
    this.#canvas.focus({ preventScroll: true });
    event.preventDefault();
    if (this.#pointers.size > 1) {
      // A second finger: the first one was not meant to draw.
      if (this.#drawing !== null) this.#actions.cancel();
      [this.#drawing, this.#moves] = [null, true];
    } else if (event.button === MAIN || event.button === PEN_ERASER) {
      this.#drawing = event.pointerId;
      this.#actions.start(event);
    } else {
      this.#moves = true;
    }
  }

  #onMove(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) {
      this.#actions.hover(event);
      return;
    }
    if (event.pointerId === this.#drawing) {
      // The browser joins the events of one frame of the display; the line has all of their places.
      const joined = event.getCoalescedEvents?.() ?? [];
      for (const part of joined.length > 0 ? joined : [event]) this.#actions.move(part);
      return;
    }
    if (!this.#moves) return;
    const now = this.#view.pointOf(event);
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    if (others.length === 0) {
      this.#view.pan([now[0] - before[0], now[1] - before[1]]);
    } else {
      const [other] = others;
      const distance = ([x, y]) => Math.max(1, Math.hypot(x - other[0], y - other[1]));
      this.#view.pan([(now[0] - before[0]) / 2, (now[1] - before[1]) / 2]);
      this.#view.zoom(distance(now) / distance(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    }
    this.#pointers.set(event.pointerId, now);
  }

  #onUp(event) {
    this.#pointers.delete(event.pointerId);
    if (event.pointerId === this.#drawing) {
      this.#drawing = null;
      this.#actions.end(event);
    }
    if (this.#pointers.size === 0) this.#moves = false;
  }

  #onCancel(event) {
    this.#pointers.delete(event.pointerId);
    if (event.pointerId === this.#drawing) {
      this.#drawing = null;
      this.#actions.cancel();
    }
    if (this.#pointers.size === 0) this.#moves = false;
  }

  #onLeave(event) {
    if (!this.#pointers.has(event.pointerId)) this.#actions.hover(null);
  }
}

/** Whether the eraser of a pen is down. */
export const isPenEraser = (event) => event.pointerType === "pen" && (event.button === PEN_ERASER || (event.buttons & 32) !== 0);
