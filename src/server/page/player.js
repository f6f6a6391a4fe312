/*
 * The video of one stream. WebRTC is tried first. If it shows no frame soon, MJPEG replaces it, and WebRTC is tried again in
 * the background.
 *
 * After two seconds without a new frame the video is shown in grey with a note. A frame counts when the browser has shown it,
 * not when the connection has received it.
 */
import { make, setText } from "./dom.js";
import { Mjpeg, stillPeriod } from "./mjpeg.js";
import { Whep } from "./whep.js";

/** Without a WebRTC frame, MJPEG is started after the first time, and WebRTC is closed after the second. */
const FALL_BACK_MS = 2500;
const GIVE_UP_MS = 8000;
/** Delays before WebRTC is tried again, by the number of failures in a row. */
const WHEP_AGAIN_MS = [2000, 15_000, 60_000, 300_000];
const MISSING_AGAIN_MS = 300_000;
const MJPEG_AGAIN_MS = [1000, 2000, 4000, 8000, 15_000];
/** Without a new frame, the video is marked as old after the first time, and reconnected after the second. */
const STALE_MS = 2000;
const RENEW_MS = 5000;
const LOOK_MS = 250;

/** The players that are connected; checked every LOOK_MS. */
const shown = new Set();

export class Player {
  #wanted = false;
  #whep = null;
  #mjpeg;
  #whepAt = 0;
  #whepFailures = 0;
  #mjpegFailures = 0;
  #counted = 0;
  #renewedAt = 0;
  #timers = {};
  /** The source of the visible video: "whep", "mjpeg" or null. */
  way = null;
  /** When the newest frame was shown, in milliseconds of `performance.now()`. */
  frameAt = 0;
  /** Frame rate of the source, 0 if unknown. A slow camera must not be marked as old. */
  rate = 0;

  constructor(name) {
    this.name = name;
    this.video = make("video", { muted: true, autoplay: true, playsInline: true, disablePictureInPicture: true });
    this.video.setAttribute("aria-label", `Live video of ${name}`);
    this.canvas = make("canvas", { role: "img", "aria-label": `Live video of ${name}` });
    this.placeholder = make("p", { className: "placeholder" });
    this.note = make("p", { className: "note", hidden: true });
    this.root = make("div", { className: "screen" }, this.video, this.canvas, this.placeholder, this.note);
    this.#show(null);
    this.#mjpeg = new Mjpeg(name, this.canvas, {
      onFrame: () => this.#onJpeg(),
      onEnd: (reason) => this.#onMjpegEnd(reason),
    });
  }

  /** The name of the transport. */
  get transport() {
    if (this.way === "whep") return "WebRTC";
    if (this.way === "mjpeg") return this.#mjpeg.mode === "still" ? "single frames" : "MJPEG";
    return "–";
  }

  /** Width and height of the visible video, null without one. */
  get size() {
    const size = this.way === "whep" ? [this.video.videoWidth, this.video.videoHeight] : [this.canvas.width, this.canvas.height];
    return this.way !== null && size[0] > 0 && size[1] > 0 ? size : null;
  }

  get isStale() {
    return this.root.classList.contains("old");
  }

  /** Connects or disconnects. Disconnecting also hides the last frame, which must not look live. */
  setWanted(wanted) {
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    if (wanted) {
      shown.add(this);
      this.frameAt = performance.now();
      this.#begin();
    } else {
      shown.delete(this);
      this.#stop();
    }
  }

  /** Connects again after the computer was suspended or the service restarted: old connections are probably dead. */
  restart() {
    if (!this.#wanted) return;
    this.#stop();
    [this.#whepAt, this.#whepFailures, this.#mjpegFailures] = [0, 0, 0];
    this.frameAt = performance.now();
    this.#begin();
  }

  /** Continues playback: some browsers pause a <video> that is moved. */
  resume() {
    if (this.way === "whep") this.video.play().catch(() => {});
  }

  #begin() {
    const pause = this.#whepAt - Date.now();
    if (!Whep.isSupported || pause > 0) {
      this.#mjpeg.join();
      if (Whep.isSupported) this.#later("whep", pause, () => this.#tryWhep());
      return;
    }
    this.#tryWhep();
  }

  #stop() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
    this.#closeWhep();
    this.#mjpeg.leave();
    this.#show(null);
    this.#setAge(0);
  }

  #later(what, delay, action) {
    clearTimeout(this.#timers[what]);
    this.#timers[what] = setTimeout(action, Math.max(delay, 0));
  }

  /** The other element keeps its place, invisible: browsers do not count the frames of a video that has no box. */
  #show(way) {
    this.way = way;
    this.root.dataset.way = way ?? "none";
    this.video.ariaHidden = String(way !== "whep");
    this.canvas.ariaHidden = String(way !== "mjpeg");
  }

  /* WebRTC */

  async #tryWhep() {
    this.#closeWhep();
    const whep = (this.#whep = new Whep(this.name, this.video, (refusal) => this.#onWhepEnd(whep, refusal)));
    this.#counted = 0;
    this.#watchVideo(whep);
    if (this.way !== "mjpeg") this.#later("fallBack", this.#whepFailures > 0 ? 0 : FALL_BACK_MS, () => this.#mjpeg.join());
    this.#later("giveUp", GIVE_UP_MS, () => this.#onWhepEnd(whep, { message: "no frame arrived" }));
    try {
      await whep.start();
    } catch (error) {
      this.#onWhepEnd(whep, error);
    }
  }

  #closeWhep() {
    const whep = this.#whep;
    this.#whep = null;
    whep?.close();
  }

  /** Counts each frame that the browser shows. */
  #watchVideo(whep) {
    const { video } = this;
    if (!video.requestVideoFrameCallback) return;
    const seen = () => {
      if (this.#whep !== whep) return;
      this.#onFrame();
      video.requestVideoFrameCallback(seen);
    };
    video.requestVideoFrameCallback(seen);
  }

  /** Reads the frame counter, for browsers and videos without frame callbacks. */
  #countFrames() {
    if (!this.#whep) return;
    const counted = this.video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
    if (counted > this.#counted) this.#onFrame();
    this.#counted = counted;
  }

  #onFrame() {
    this.frameAt = performance.now();
    if (this.way === "whep") return;
    clearTimeout(this.#timers.fallBack);
    clearTimeout(this.#timers.giveUp);
    this.#show("whep");
    this.#mjpeg.leave();
    this.#mjpegFailures = 0;
    // Only a connection that stays open counts as a success.
    this.#later("steady", RENEW_MS, () => (this.#whepFailures = 0));
  }

  #onWhepEnd(whep, refusal) {
    if (this.#whep !== whep || !this.#wanted) return;
    this.#closeWhep();
    clearTimeout(this.#timers.fallBack);
    clearTimeout(this.#timers.giveUp);
    clearTimeout(this.#timers.steady);
    const worked = this.way === "whep" && this.#whepFailures === 0;
    if (this.way === "whep") this.#show(null);
    if (worked) {
      // It worked until now: try again at once, with MJPEG in parallel.
      this.#whepFailures = 1;
      this.#tryWhep();
      return;
    }
    const pause = refusal.isMissing ? MISSING_AGAIN_MS : WHEP_AGAIN_MS[Math.min(this.#whepFailures, WHEP_AGAIN_MS.length - 1)];
    this.#whepFailures += 1;
    this.#whepAt = Date.now() + pause;
    this.#mjpeg.join();
    this.#later("whep", pause, () => this.#tryWhep());
  }

  /* MJPEG */

  #onJpeg() {
    this.#mjpegFailures = 0;
    // Both may be connected for a moment; WebRTC has priority.
    if (this.way === "whep" && !this.isStale) return;
    this.frameAt = performance.now();
    this.#show("mjpeg");
  }

  #onMjpegEnd() {
    if (!this.#wanted) return;
    this.#mjpeg.leave();
    const pause = MJPEG_AGAIN_MS[Math.min(this.#mjpegFailures, MJPEG_AGAIN_MS.length - 1)];
    this.#mjpegFailures += 1;
    this.#later("mjpeg", pause, () => {
      if (this.way !== "whep") this.#mjpeg.join();
    });
  }

  /* Periodic checks */

  /** Called every LOOK_MS for all connected players. */
  look(now) {
    this.#countFrames();
    const age = now - this.frameAt;
    const still = this.#mjpeg.mode === "still";
    const limit = still ? 2 * stillPeriod() : Math.max(STALE_MS, this.rate > 0 ? 3000 / this.rate : 0);
    this.#setAge(this.way !== null && age > limit ? age : 0);
    const renewAfter = limit + RENEW_MS - STALE_MS;
    if (age < renewAfter || now - this.#renewedAt < renewAfter) return;
    this.#renewedAt = now;
    if (this.way === "whep" && this.#whep) this.#onWhepEnd(this.#whep, { message: "no more frames arrived" });
    else if (this.way === "mjpeg" && this.#mjpeg.mode === "live") this.#onMjpegEnd();
  }

  #setAge(age) {
    this.root.classList.toggle("old", age > 0);
    this.note.hidden = age === 0;
    setText(this.note, age > 0 ? `No new frame for ${Math.floor(age / 1000)} s` : "");
  }
}

setInterval(() => {
  const now = performance.now();
  for (const player of shown) player.look(now);
}, LOOK_MS);
