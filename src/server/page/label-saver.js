/*
 * Saves the label of one frame. Each change is first kept in the browser, then sent to the service a moment later; after a lost
 * connection it is sent again until the service has it. A label that somebody else has saved in between is never replaced without
 * a decision of the user.
 */
import { door, request } from "./api.js";
import { draftsOf, forget, keep } from "./label-drafts.js";
import { decodeLabel, encodeLabel } from "./label-png.js";

/** Changes of this time are saved together. */
const SAVE_MS = 800;
/** Times before another attempt, by the number of failures in a row. */
const AGAIN_MS = [1000, 2000, 4000, 8000, 15_000, 30_000];

/** Labels of requests without a response that are remembered: the service may have saved them. */
const UNCONFIRMED = 3;

/** The revision in the entity tag of a response. */
export const revisionOf = (response) => Number.parseInt((response.headers.get("ETag") ?? "").replace(/^W\//, "").replaceAll('"', ""), 10);

const isSame = (a, b) => a.length === b.length && a.every((value, at) => value === b[at]);

/** Responses after which the same request may succeed later. */
const isTemporary = ({ status }) => status === 0 || status === 408 || status === 429 || status >= 500;

/**
 * Dispatches "state" when `state` or `text` change, and "conflict" when somebody else has saved the frame.
 *
 * | `state` | |
 * | --- | --- |
 * | `saved` | the service has the label |
 * | `changed`, `saving` | it will have it soon |
 * | `waiting` | no connection: it is sent again at `retryAt` |
 * | `closed` | a login is required |
 * | `conflict` | somebody else has saved the frame |
 * | `refused` | the service does not accept the label |
 */
export class LabelSaver extends EventTarget {
  #path;
  #stream;
  #id;
  #pixels;
  #size;
  #palette;
  #timer = null;
  #failures = 0;
  #isSending = false;
  #isOpen = true;
  /** Counts the changes, so that one during a request is sent after it. */
  #version = 0;
  #savedVersion = 0;
  /** The newest write of a draft. */
  #kept = Promise.resolve();
  #isKept = true;
  #unconfirmed = [];
  #stop = new AbortController();
  state = "saved";
  text = "Saved";
  retryAt = null;

  /** `path` is that of the label in the API; `pixels()` returns the current pixels; `revision` is that of the label. */
  constructor({ path, stream, id, width, height, palette, revision, pixels }) {
    super();
    [this.#path, this.#stream, this.#id, this.#pixels, this.#palette] = [path, stream, id, pixels, palette];
    this.#size = [width, height];
    this.revision = revision;
    const { signal } = this.#stop;
    window.addEventListener("online", () => this.retry(), { signal });
    door.addEventListener("connected", () => this.retry(), { signal });
    // The browser may end the page while it is hidden.
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden" && this.state === "changed") this.#send();
    }, { signal });
  }

  /** Whether the service has all changes. */
  get isSaved() {
    return this.#version === this.#savedVersion;
  }

  /** Whether the browser keeps the changes that the service does not have. */
  get isKept() {
    return this.#isKept;
  }

  #set(state, text) {
    if (!this.#isOpen) return;
    [this.state, this.text] = [state, this.#isKept || state === "saved" ? text : `${text}. This browser does not keep it: leave this page open`];
    this.dispatchEvent(new Event("state"));
  }

  /** Keeps the changed label, and sends it soon. */
  change() {
    this.#version += 1;
    this.keepDraft();
    if (this.state === "conflict") return;
    if (this.state === "waiting" || this.state === "closed") {
      this.#set(this.state, this.text);
      return;
    }
    this.#set(this.#isSending ? "saving" : "changed", "Saving…");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#send(), SAVE_MS);
  }

  keepDraft() {
    const kept = keep({ stream: this.#stream, id: this.#id, revision: this.revision, pixels: this.#pixels() });
    this.#kept = kept.then(() => (this.#isKept = true), (error) => {
      this.#isKept = false;
      console.warn(`The label cannot be kept in the browser: ${error?.message}`);
      this.#set(this.state, this.text);
    });
  }

  /** Sends what is not saved at once. Resolves to whether the service has all changes. */
  async save() {
    clearTimeout(this.#timer);
    if (!this.isSaved && this.state !== "conflict") await this.#send();
    return this.isSaved;
  }

  /** Another attempt, now. */
  retry() {
    if (!this.isSaved && (this.state === "waiting" || this.state === "closed")) this.#send();
  }

  /** Ends this saver. Drafts of changes that are not saved stay. */
  close() {
    clearTimeout(this.#timer);
    this.#isOpen = false;
    this.#stop.abort();
  }

  /** Saves the own label in place of the other one, which has this revision. */
  async keepMine(revision) {
    this.revision = revision;
    this.keepDraft();
    this.#set("changed", "Saving…");
    await this.#send();
  }

  /** The label of the service, with this revision, has replaced the own one. */
  async takeTheirs(revision) {
    this.revision = revision;
    this.#savedVersion = this.#version;
    await this.#forgetDrafts();
    this.#set("saved", "Saved");
  }

  /** Removes the drafts of the frame that are older than what the service has now. */
  async #forgetDrafts(before = Date.now()) {
    try {
      await this.#kept;
      const drafts = await draftsOf(this.#stream, this.#id);
      if (this.isSaved) await forget(drafts.filter(({ time }) => time <= before).map(({ key }) => key));
    } catch {
      // A draft that stays is compared with the label when the frame is opened.
    }
  }

  async #send() {
    clearTimeout(this.#timer);
    if (this.#isSending) return;
    this.#isSending = true;
    this.#set("saving", "Saving…");
    const [version, began, pixels] = [this.#version, Date.now(), this.#pixels().slice()];
    try {
      const body = await encodeLabel(...this.#size, pixels, this.#palette);
      const response = await request("PUT", this.#path, { body, type: "image/png", headers: { "If-Match": `"${this.revision}"` } });
      const record = await response.json();
      this.#isSending = false;
      this.dispatchEvent(new CustomEvent("record", { detail: record }));
      this.#onSaved(record.revision, version, began);
    } catch (error) {
      this.#isSending = false;
      if (error.status === 0) this.#unconfirmed = [pixels, ...this.#unconfirmed].slice(0, UNCONFIRMED);
      if (error.status === 412) await this.#compare(pixels, version, began);
      else this.#onFailure(error);
    }
  }

  #onSaved(revision, version, began) {
    [this.revision, this.#savedVersion, this.#failures, this.#unconfirmed] = [revision, version, 0, []];
    if (this.isSaved) {
      this.#set("saved", "Saved");
      this.#forgetDrafts(began);
    } else {
      // The change during the request is kept for the new revision.
      this.keepDraft();
      this.#set("changed", "Saving…");
      this.#timer = setTimeout(() => this.#send(), SAVE_MS);
    }
  }

  /**
   * After 412: the label of the service is the own one if the response to an earlier request was lost. Otherwise somebody else has
   * saved it.
   */
  async #compare(pixels, version, began) {
    try {
      const response = await request("GET", this.#path);
      const revision = revisionOf(response);
      const theirs = (await decodeLabel(await response.arrayBuffer())).pixels;
      if (isSame(theirs, pixels)) {
        this.#onSaved(revision, version, began);
      } else if (this.#unconfirmed.some((sent) => isSame(theirs, sent))) {
        this.#unconfirmed = [];
        await this.keepMine(revision);
      } else {
        this.#set("conflict", "Not saved: somebody else has saved this frame");
        if (this.#isOpen) this.dispatchEvent(new CustomEvent("conflict", { detail: { theirs, revision } }));
      }
    } catch (error) {
      this.#onFailure(error);
    }
  }

  #onFailure(error) {
    if (error.status === 401) {
      this.#set("closed", "Not saved: log in again");
    } else if (isTemporary(error)) {
      const wait = error.wait ? 1000 * error.wait : AGAIN_MS[Math.min(this.#failures, AGAIN_MS.length - 1)];
      this.#failures += 1;
      this.retryAt = Date.now() + wait;
      this.#set("waiting", error.status === 0 ? "Not saved: no connection; retrying" : `Not saved: ${error.message}; retrying`);
      if (this.#isOpen) this.#timer = setTimeout(() => this.#send(), wait);
    } else {
      this.#set("refused", `Not saved: ${error.message ?? error}`);
    }
  }
}
