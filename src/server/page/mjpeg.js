/*
 * Video without WebRTC: an endless MJPEG response. It is parsed here and not by an <img>, so that the page has the time of
 * the last frame and the error that ended the response.
 *
 * Browsers open at most six HTTP/1.1 connections to a host, and each MJPEG response occupies one. Therefore at most four are
 * open. One connection stays free for the API and one for snapshots: streams beyond the first four show snapshots, which are
 * requested one after the other, for each stream at most every two seconds.
 */
import { Refusal, door, ofStream, read, request } from "./api.js";

const MAX_CONNECTED = 4;
const STILL_MS = 2000;
const PAUSE_MS = 250;

/** Limits of a part of the response in bytes: its header, and its JPEG. */
const MAX_HEAD = 1024;
const MAX_JPEG = 32 << 20;

/* ---- Parsing ---- */

/** Splits the response into JPEGs. */
class Parts {
  #head = "";
  #jpeg = null;
  #filled = 0;

  *feed(chunk) {
    let at = 0;
    while (at < chunk.length) {
      if (this.#jpeg === null) {
        this.#head += String.fromCharCode(chunk[at]);
        at += 1;
        if (this.#head.endsWith("\r\n\r\n")) this.#open();
        else if (this.#head.length > MAX_HEAD) throw new Error("the MJPEG response has a part without a header");
        continue;
      }
      const piece = chunk.subarray(at, at + this.#jpeg.length - this.#filled);
      this.#jpeg.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
      if (this.#filled < this.#jpeg.length) continue;
      yield this.#jpeg;
      this.#jpeg = null;
    }
  }

  #open() {
    const size = Number(/content-length: *(\d+)/i.exec(this.#head)?.[1] ?? 0);
    if (size === 0 || size > MAX_JPEG) throw new Error("the MJPEG response has a part without a valid Content-Length");
    [this.#head, this.#jpeg, this.#filled] = ["", new Uint8Array(size), 0];
  }
}

/** Draws JPEGs on a canvas. While one is being decoded, only the newest of the others is kept. */
class Painter {
  #canvas;
  #context;
  #busy = false;
  #waiting = null;

  constructor(canvas, onFrame) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("bitmaprenderer");
    this.onFrame = onFrame;
  }

  async paint(jpeg) {
    this.#waiting = jpeg;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#waiting) {
      const blob = new Blob([this.#waiting], { type: "image/jpeg" });
      this.#waiting = null;
      try {
        const bitmap = await createImageBitmap(blob);
        if (this.#canvas.width !== bitmap.width) this.#canvas.width = bitmap.width;
        if (this.#canvas.height !== bitmap.height) this.#canvas.height = bitmap.height;
        this.#context.transferFromImageBitmap(bitmap);
        this.onFrame();
      } catch {
        // A JPEG that cannot be decoded is skipped.
      }
    }
    this.#busy = false;
  }
}

/** Draws a stream on a canvas, by an MJPEG response or by snapshots if too many responses are open. */
export class Mjpeg {
  #abort = null;
  #painter;
  /** When the last snapshot was requested, in milliseconds of `performance.now()`. */
  askedAt = 0;
  /** "live", "still" or "off" */
  mode = "off";

  /** `onFrame` is called for each frame, `onEnd` with the error when the MJPEG response ends. */
  constructor(name, canvas, { onFrame, onEnd }) {
    this.name = name;
    this.#painter = new Painter(canvas, () => {
      if (this.mode !== "off") onFrame();
    });
    this.onEnd = onEnd;
  }

  join() {
    if (members.has(this)) return;
    members.add(this);
    assign();
  }

  leave() {
    if (!members.delete(this)) return;
    this.setMode("off");
    assign();
  }

  setMode(mode) {
    if (mode === this.mode) return;
    this.mode = mode;
    this.#abort?.abort();
    this.#abort = null;
    if (mode === "live") this.#run();
  }

  async #run() {
    const abort = (this.#abort = new AbortController());
    let reason = "the service closed the connection";
    try {
      // With the type multipart/x-mixed-replace, some browsers would parse the response themselves.
      const headers = { Accept: "multipart/mixed" };
      const path = `/mjpeg/${encodeURIComponent(this.name)}`;
      const response = await fetch(path, { headers, cache: "no-store", signal: abort.signal });
      if (!response.ok) throw await read(response);
      const parts = new Parts();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const jpeg of parts.feed(value)) this.#painter.paint(jpeg);
      }
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) door.dispatchEvent(new Event("closed"));
      reason = error.message;
    }
    if (abort.signal.aborted) return;
    abort.abort();
    this.onEnd(reason);
  }

  /** Requests a snapshot and draws it. Ignores errors. */
  async takeStill() {
    this.askedAt = performance.now();
    try {
      const response = await request("GET", `${ofStream(this.name)}/snapshot.jpg`);
      const jpeg = new Uint8Array(await response.arrayBuffer());
      if (this.mode === "still") await this.#painter.paint(jpeg);
    } catch {
      // It is requested again in its turn.
    }
  }
}

/* ---- Assignment of connections ---- */

/** In the order in which they joined. */
const members = new Set();

function assign() {
  const all = [...members];
  // First disconnect, so that connections are free for the others.
  for (const member of all.slice(MAX_CONNECTED)) member.setMode("still");
  for (const member of all.slice(0, MAX_CONNECTED)) member.setMode("live");
}

/** Milliseconds between two snapshots of a stream if all requests succeed. */
export function stillPeriod() {
  return STILL_MS + PAUSE_MS * Math.max(0, members.size - MAX_CONNECTED);
}

/** Requests the snapshot that is oldest; one at a time, so that they use only one connection. */
async function renewStills() {
  const waiting = [...members].filter((member) => member.mode === "still");
  const oldest = waiting.sort((a, b) => a.askedAt - b.askedAt)[0];
  const wait = oldest ? oldest.askedAt + STILL_MS - performance.now() : PAUSE_MS;
  if (oldest && (wait <= 0 || oldest.askedAt === 0)) await oldest.takeStill();
  setTimeout(renewStills, Math.min(Math.max(wait, 50), PAUSE_MS));
}

renewStills();
