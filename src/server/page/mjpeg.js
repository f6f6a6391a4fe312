/*
 * Pictures without WebRTC: an endless response with one JPEG after the other, read here rather than by an <img>, so that
 * the page knows when the last one came, and why there are no more.
 *
 * Browsers open at most six HTTP/1.1 connections to a host, and such a response holds one for as long as it goes on.
 * So at most four are open, one connection stays for the API, and one for single pictures: streams beyond the first
 * four get a single picture each, renewed in turn, at most every two seconds.
 */
import { Refusal, door, ofStream, read, request } from "./api.js";

const MAX_CONNECTED = 4;
const STILL_MS = 2000;
const PAUSE_MS = 250;

/** Limits of what is taken for a picture: its head, and its size in bytes. */
const MAX_HEAD = 1024;
const MAX_PICTURE = 32 << 20;

/* ---- Reading ---- */

/** Cuts the response into pictures. */
class Parts {
  #head = "";
  #picture = null;
  #filled = 0;

  *feed(chunk) {
    let at = 0;
    while (at < chunk.length) {
      if (this.#picture === null) {
        this.#head += String.fromCharCode(chunk[at]);
        at += 1;
        if (this.#head.endsWith("\r\n\r\n")) this.#open();
        else if (this.#head.length > MAX_HEAD) throw new Error("the pictures cannot be told apart");
        continue;
      }
      const piece = chunk.subarray(at, at + this.#picture.length - this.#filled);
      this.#picture.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
      if (this.#filled < this.#picture.length) continue;
      yield this.#picture;
      this.#picture = null;
    }
  }

  #open() {
    const size = Number(/content-length: *(\d+)/i.exec(this.#head)?.[1] ?? 0);
    if (size === 0 || size > MAX_PICTURE) throw new Error("a picture of no known size");
    [this.#head, this.#picture, this.#filled] = ["", new Uint8Array(size), 0];
  }
}

/** Draws JPEGs on a canvas. One that comes while another is being decoded takes the place of those that wait. */
class Painter {
  #canvas;
  #context;
  #busy = false;
  #waiting = null;

  constructor(canvas, onPicture) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("bitmaprenderer");
    this.onPicture = onPicture;
  }

  async paint(jpeg) {
    this.#waiting = jpeg;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#waiting) {
      const blob = new Blob([this.#waiting], { type: "image/jpeg" });
      this.#waiting = null;
      try {
        const picture = await createImageBitmap(blob);
        if (this.#canvas.width !== picture.width) this.#canvas.width = picture.width;
        if (this.#canvas.height !== picture.height) this.#canvas.height = picture.height;
        this.#context.transferFromImageBitmap(picture);
        this.onPicture();
      } catch {
        // A damaged picture: the next one is about to come.
      }
    }
    this.#busy = false;
  }
}

/** Pictures of one stream on a canvas, by whichever of the two ways there is room for. */
export class Mjpeg {
  #abort = null;
  #painter;
  /** When the last single picture was asked for, in milliseconds. */
  askedAt = 0;
  /** "live", "still" or "off" */
  mode = "off";

  /** `onPicture` is called for each picture, `onEnd` with the reason when a live response ends by itself. */
  constructor(name, canvas, { onPicture, onEnd }) {
    this.name = name;
    this.#painter = new Painter(canvas, () => {
      if (this.mode !== "off") onPicture();
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
    let reason = "the service has ended it";
    try {
      // By this name no browser takes the response apart itself.
      const headers = { Accept: "multipart/mixed" };
      const path = `/mjpeg/${encodeURIComponent(this.name)}`;
      const response = await fetch(path, { headers, cache: "no-store", signal: abort.signal });
      if (!response.ok) throw await read(response);
      const parts = new Parts();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const picture of parts.feed(value)) this.#painter.paint(picture);
      }
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) door.dispatchEvent(new Event("closed"));
      reason = error.message;
    }
    if (abort.signal.aborted) return;
    abort.abort();
    this.onEnd(reason);
  }

  /** One picture. Ends when it is there, or is not to be had. */
  async takeStill() {
    this.askedAt = performance.now();
    try {
      const response = await request("GET", `${ofStream(this.name)}/snapshot.jpg`);
      const picture = new Uint8Array(await response.arrayBuffer());
      if (this.mode === "still") await this.#painter.paint(picture);
    } catch {
      // Its turn comes again.
    }
  }
}

/* ---- Who is connected ---- */

/** In the order of arrival. */
const members = new Set();

function assign() {
  const all = [...members];
  // What is released goes first, so that there is a connection for what is new.
  for (const member of all.slice(MAX_CONNECTED)) member.setMode("still");
  for (const member of all.slice(0, MAX_CONNECTED)) member.setMode("live");
}

/** Milliseconds within which a single picture is renewed, when all goes well. */
export function stillPeriod() {
  return STILL_MS + PAUSE_MS * Math.max(0, members.size - MAX_CONNECTED);
}

/** Renews the single picture that is oldest; one at a time, so that they never take more than one connection. */
async function renewStills() {
  const waiting = [...members].filter((member) => member.mode === "still");
  const oldest = waiting.sort((a, b) => a.askedAt - b.askedAt)[0];
  const wait = oldest ? oldest.askedAt + STILL_MS - performance.now() : PAUSE_MS;
  if (oldest && (wait <= 0 || oldest.askedAt === 0)) await oldest.takeStill();
  setTimeout(renewStills, Math.min(Math.max(wait, 50), PAUSE_MS));
}

renewStills();
