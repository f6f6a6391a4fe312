/*
 * Server-sent events of the service. A connection is open only while the page is visible: browsers open at most six
 * HTTP/1.1 connections to a host, and each response of this kind occupies one.
 */

/** Times before a connection that the service has refused or ended is opened again, by the number of failures in a row. */
const AGAIN_MS = [3000, 10_000, 30_000, 60_000];

export class Live {
  #path = null;
  #source = null;
  #timer = null;
  #failures = 0;
  #event;
  #onMessage;
  /** When the last message arrived, in milliseconds of `performance.now()`. */
  #messageAt = -Infinity;

  /** `event` is the type of the messages; `onMessage` gets their JSON. */
  constructor(event, onMessage) {
    [this.#event, this.#onMessage] = [event, onMessage];
    document.addEventListener("visibilitychange", () => this.#start());
    window.addEventListener("pagehide", () => this.#stop());
    window.addEventListener("pageshow", () => this.#start());
  }

  /** Whether a message arrived in the last `limit` milliseconds. */
  isFresh(limit) {
    return performance.now() - this.#messageAt < limit;
  }

  /** Connects to a path; null disconnects. */
  open(path) {
    this.#stop();
    [this.#path, this.#failures, this.#messageAt] = [path, 0, -Infinity];
    this.#start();
  }

  #start() {
    if (this.#path === null || document.visibilityState !== "visible") {
      this.#stop();
      return;
    }
    if (this.#source) return;
    clearTimeout(this.#timer);
    const source = (this.#source = new EventSource(this.#path));
    source.addEventListener("open", () => (this.#failures = 0));
    source.addEventListener(this.#event, ({ data }) => {
      if (this.#source !== source) return;
      this.#messageAt = performance.now();
      this.#onMessage(JSON.parse(data));
    });
    source.addEventListener("error", () => {
      // In other states, the browser connects again by itself.
      if (source.readyState !== EventSource.CLOSED || this.#source !== source) return;
      this.#stop();
      this.#timer = setTimeout(() => this.#start(), AGAIN_MS[Math.min(this.#failures, AGAIN_MS.length - 1)]);
      this.#failures += 1;
    });
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }
}
