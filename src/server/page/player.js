/*
 * One stream's picture. WebRTC comes first; where that shows nothing soon, JPEG takes over, and WebRTC is tried again in
 * the background from time to time.
 *
 * The picture says when it is not live: two seconds without a new frame, and it is greyed with a note. A frame counts
 * when the browser has shown it, not when a connection says that it is there.
 */
import { make, setText } from "./dom.js";
import { Mjpeg, stillPeriod } from "./mjpeg.js";
import { Whep } from "./whep.js";

/** Without a frame by WebRTC for so long, JPEG begins beside it; then WebRTC is given up for this time. */
const FALL_BACK_MS = 2500;
const GIVE_UP_MS = 8000;
/** Pauses before WebRTC is tried again, by the number of failures in a row. */
const WHEP_AGAIN_MS = [2000, 15_000, 60_000, 300_000];
const MISSING_AGAIN_MS = 300_000;
const MJPEG_AGAIN_MS = [1000, 2000, 4000, 8000, 15_000];
/** A picture is not live after this time, and its connection is made anew after that one. */
const STALE_MS = 2000;
const RENEW_MS = 5000;
const LOOK_MS = 250;

/** All that are wanted, for the watch over them. */
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
  /** "whep", "mjpeg" or null: whose picture is to be seen. */
  way = null;
  /** When the newest picture was shown; milliseconds of `performance.now()`. */
  pictureAt = 0;
  /** Frames a second that the source gives, as far as known: slow cameras are not stalled ones. */
  rate = 0;

  constructor(name) {
    this.name = name;
    this.video = make("video", { muted: true, autoplay: true, playsInline: true, disablePictureInPicture: true });
    this.video.setAttribute("aria-label", `Live video of ${name}`);
    this.canvas = make("canvas", { role: "img", "aria-label": `Live picture of ${name}` });
    this.placeholder = make("p", { className: "placeholder" });
    this.note = make("p", { className: "note", hidden: true });
    this.root = make("div", { className: "screen" }, this.video, this.canvas, this.placeholder, this.note);
    this.#show(null);
    this.#mjpeg = new Mjpeg(name, this.canvas, {
      onPicture: () => this.#onJpeg(),
      onEnd: (reason) => this.#onMjpegEnd(reason),
    });
  }

  /** The element with the picture, or null. */
  get picture() {
    return { whep: this.video, mjpeg: this.canvas }[this.way] ?? null;
  }

  /** What brings the picture, in words. */
  get transport() {
    if (this.way === "whep") return "WebRTC";
    if (this.way === "mjpeg") return this.#mjpeg.mode === "still" ? "single pictures" : "MJPEG";
    return "–";
  }

  get isStale() {
    return this.root.classList.contains("old");
  }

  /** Connects, or lets go. What was seen goes, too: it must not pass for a live picture. */
  setWanted(wanted) {
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    if (wanted) {
      shown.add(this);
      this.pictureAt = performance.now();
      this.#begin();
    } else {
      shown.delete(this);
      this.#stop();
    }
  }

  /** After a computer's sleep, or when the service is another one: connections are most likely gone without a word. */
  restart() {
    if (!this.#wanted) return;
    this.#stop();
    [this.#whepAt, this.#whepFailures, this.#mjpegFailures] = [0, 0, 0];
    this.pictureAt = performance.now();
    this.#begin();
  }

  /** A moved <video> pauses in some browsers. */
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

  /** The other element stays where it is, unseen: browsers count no frames of a video that has no box. */
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
    this.#later("giveUp", GIVE_UP_MS, () => this.#onWhepEnd(whep, { message: "no picture came" }));
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

  /** Calls for each frame that the browser has shown. */
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

  /** For browsers that do not call, and videos that they do not call for: looks whether frames were counted. */
  #countFrames() {
    if (!this.#whep) return;
    const counted = this.video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
    if (counted > this.#counted) this.#onFrame();
    this.#counted = counted;
  }

  #onFrame() {
    this.pictureAt = performance.now();
    if (this.way === "whep") return;
    clearTimeout(this.#timers.fallBack);
    clearTimeout(this.#timers.giveUp);
    this.#show("whep");
    this.#mjpeg.leave();
    this.#mjpegFailures = 0;
    // Only one that lasts counts as a success.
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
      // It did its work until now: once more, at once, with JPEG beside it.
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

  /* JPEG */

  #onJpeg() {
    this.#mjpegFailures = 0;
    // Both may be under way for a moment: video is the better one.
    if (this.way === "whep" && !this.isStale) return;
    this.pictureAt = performance.now();
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

  /* The watch */

  /** Called every LOOK_MS for all that are shown. */
  look(now) {
    this.#countFrames();
    const age = now - this.pictureAt;
    const still = this.#mjpeg.mode === "still";
    const limit = still ? 2 * stillPeriod() : Math.max(STALE_MS, this.rate > 0 ? 3000 / this.rate : 0);
    this.#setAge(this.way !== null && age > limit ? age : 0);
    const patience = limit + RENEW_MS - STALE_MS;
    if (age < patience || now - this.#renewedAt < patience) return;
    this.#renewedAt = now;
    if (this.way === "whep" && this.#whep) this.#onWhepEnd(this.#whep, { message: "no more pictures came" });
    else if (this.way === "mjpeg" && this.#mjpeg.mode === "live") this.#onMjpegEnd();
  }

  #setAge(age) {
    this.root.classList.toggle("old", age > 0);
    this.note.hidden = age === 0;
    setText(this.note, age > 0 ? `No new picture for ${Math.floor(age / 1000)} s` : "");
  }
}

setInterval(() => {
  const now = performance.now();
  for (const player of shown) player.look(now);
}, LOOK_MS);
