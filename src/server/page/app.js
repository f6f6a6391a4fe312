"use strict";

/*
 * The page polls /api/v1/streams once a second and shows what it says; pictures come as MJPEG.
 *
 * Browsers open at most six HTTP/1.1 connections to a host, and an MJPEG picture holds one for as long as it is shown.
 * So at most four pictures are connected, one connection stays for the API, and one for snapshots: streams beyond the
 * first four visible ones show a single picture each, renewed in turn, at most every two seconds.
 * Only what can be seen is connected. A stream that nobody looks at is neither drawn nor encoded.
 */
const MAX_CONNECTED = 4;
const POLL_MS = 1000;
const POLL_LIMIT_MS = 5000;
const SNAPSHOT_MS = 2000;
const RETRY_MS = [1000, 2000, 4000, 8000, 15000];

const byId = (id) => document.getElementById(id);
const cards = new Map();
const large = byId("large");
let enlarged = null;
let connected = null;
let started = 0;

/** Sets text only when it differs, so that selections and screen readers are left in peace. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/* ---- One stream ---- */

class Card {
  constructor(name) {
    this.name = name;
    this.report = null;
    this.visible = false;
    this.mode = "off";
    this.failures = 0;
    this.unseen = 0;
    this.snapshotAt = 0;
    this.root = byId("card").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.root.querySelector(selector);
    this.frame = find(".picture");
    this.image = find("img");
    this.placeholder = find(".placeholder");
    this.pill = find(".pill");
    this.reason = find(".reason");
    this.legend = find(".legend");
    this.rtsp = find(".rtsp");
    this.facts = {};
    for (const fact of this.root.querySelectorAll("[data-fact]")) this.facts[fact.dataset.fact] = fact;
    find(".name").textContent = name;
    this.root.setAttribute("aria-label", name);
    this.frame.setAttribute("aria-label", `${name}: show large`);
    this.image.alt = `Live picture of ${name}`;
    this.rtsp.setAttribute("aria-label", `RTSP address of ${name}`);
    this.rtsp.addEventListener("focus", () => this.rtsp.select());
    const copy = find(".copy");
    copy.setAttribute("aria-label", `Copy the RTSP address of ${name}`);
    copy.addEventListener("click", () => copyAddress(this.rtsp, copy));
    this.frame.addEventListener("click", () => enlarge(this));
    this.image.addEventListener("error", () => this.failed());
    this.image.addEventListener("load", () => this.shown());
    observer.observe(this.root);
  }

  /** Shows what the API says. */
  update(report) {
    const before = this.report;
    this.report = report;
    const { state } = report;
    if (before && before.state !== state) announce(`${this.name} is ${state}${report.reason ? `: ${report.reason}` : ""}`);
    setText(this.pill, state);
    this.pill.dataset.state = state;
    this.pill.title = `since ${new Date(report.since).toLocaleString()}`;
    const troubled = state === "offline" || state === "stale";
    this.reason.hidden = !troubled;
    this.reason.dataset.state = state;
    if (troubled) setText(this.reason, `${report.reason || state}, since ${moment(report.since)}`);
    setText(this.facts.rate, `${report.fps.toFixed(1)} fps`);
    setText(this.facts.latency, report.latency_ms === null ? "–" : `${report.latency_ms.toFixed(0)} ms`);
    setText(this.facts.size, report.width === null ? "–" : `${report.width}×${report.height}`);
    setText(this.facts.viewers, `${report.viewers.h264 + report.viewers.mjpeg}`);
    this.facts.viewers.title = `${report.viewers.h264} H.264 (RTSP, recording), ${report.viewers.mjpeg} MJPEG (pages)`;
    setText(this.facts.dropped, share(report.dropped, report.captured));
    const reasons = Object.entries(report.dropped_by_reason).map(([reason, count]) => `${reason}: ${count}`);
    this.facts.dropped.title = [`${report.dropped} of ${report.captured} frames`, ...reasons].join("\n");
    if (this.rtsp.value !== report.links.rtsp) this.rtsp.value = this.rtsp.title = report.links.rtsp;
    this.frame.title = `${report.source} (${report.show})`;
    if (JSON.stringify(before?.legend) !== JSON.stringify(report.legend)) this.showLegend(report.legend);
    this.showPlaceholder();
    this.check();
  }

  showLegend(entries) {
    this.legend.replaceChildren(...entries.map(({ name, color, hidden }) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.backgroundColor = color;
      item.className = hidden ? "off" : "";
      item.title = hidden ? "not drawn" : "";
      item.append(swatch, name);
      return item;
    }));
  }

  showPlaceholder() {
    const texts = { offline: "No picture: the source is away", starting: "Waiting for the first picture" };
    const text = texts[this.report?.state] ?? "Connecting…";
    setText(this.placeholder, connected === false ? "No connection to Maskcast" : text);
  }

  isStarting() {
    return this.report?.state === "starting";
  }

  /** The service does not answer: what it said last may no longer be so. */
  forget() {
    setText(this.pill, "unknown");
    this.pill.dataset.state = "starting";
    this.showPlaceholder();
    if (enlarged === this) showLarge("unknown", "connection lost, trying again");
  }

  /** Connects or releases the picture: "live", "snapshot" or "off". */
  setMode(mode) {
    if (mode === this.mode) return;
    const before = this.mode;
    this.mode = mode;
    clearTimeout(this.retry);
    this.unseen = 0;
    if (mode === "live") this.connect();
    // Without its address, the picture's connection ends. The picture goes, too: it must not pass for a live one.
    else if (mode === "off" || before === "live") this.blank();
  }

  connect() {
    // The browser must not take a picture that it has for the one that is asked for.
    this.image.src = `/mjpeg/${this.name}?${Date.now()}`;
  }

  blank() {
    this.image.removeAttribute("src");
    this.image.hidden = true;
  }

  reconnect() {
    if (this.mode !== "live") return;
    clearTimeout(this.retry);
    this.unseen = 0;
    this.blank();
    this.connect();
  }

  shown() {
    this.failures = 0;
    this.image.hidden = false;
  }

  failed() {
    if (this.mode !== "live" || !this.image.hasAttribute("src")) return;
    this.blank();
    const delay = RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)];
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.reconnect(), delay);
  }

  /** A picture whose connection has ended fires no event in some browsers: but then the service counts no viewer. */
  check() {
    const away = this.mode === "live" && this.image.hasAttribute("src") && this.report.viewers.mjpeg === 0;
    this.unseen = away ? this.unseen + 1 : 0;
    if (this.unseen >= 3) this.reconnect();
  }

  /** One picture. Ends when it is there, or is not to be had. */
  async takeSnapshot() {
    this.snapshotAt = performance.now();
    const picture = new Image();
    picture.src = `/api/v1/streams/${this.name}/snapshot.jpg?${Date.now()}`;
    try {
      await picture.decode();
    } catch {
      return;
    }
    if (this.mode !== "snapshot") return;
    picture.alt = this.image.alt;
    this.image.replaceWith(picture);
    this.image = picture;
    picture.addEventListener("error", () => this.failed());
    picture.addEventListener("load", () => this.shown());
  }

  remove() {
    if (enlarged === this) large.close();
    this.setMode("off");
    observer.unobserve(this.root);
    this.root.remove();
  }
}

/* ---- Which pictures are connected ---- */

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    for (const card of cards.values()) if (card.root === entry.target) card.visible = entry.isIntersecting;
  }
  assign();
}, { rootMargin: "100px" });

function assign() {
  const shown = document.visibilityState === "visible" && connected !== false;
  // The large picture covers the others.
  const visible = [...cards.values()].filter((card) => card.visible);
  // Streams that have nothing to show yet come last.
  visible.sort((a, b) => a.isStarting() - b.isStarting());
  const wanted = !shown ? [] : enlarged ? [enlarged] : visible;
  const live = new Set(wanted.slice(0, MAX_CONNECTED));
  const rest = new Set(wanted.slice(MAX_CONNECTED));
  // What is released goes first, so that there is a connection for what is new.
  for (const card of cards.values()) if (!live.has(card)) card.setMode(rest.has(card) ? "snapshot" : "off");
  for (const card of live) card.setMode("live");
}

/** Renews the snapshot that is oldest; one at a time, so that they never take more than one connection. */
async function renewSnapshots() {
  const waiting = [...cards.values()].filter((card) => card.mode === "snapshot" && !card.isStarting());
  const oldest = waiting.sort((a, b) => a.snapshotAt - b.snapshotAt)[0];
  const wait = oldest ? oldest.snapshotAt + SNAPSHOT_MS - performance.now() : 250;
  if (oldest && (wait <= 0 || oldest.snapshotAt === 0)) await oldest.takeSnapshot();
  setTimeout(renewSnapshots, Math.min(Math.max(wait, 50), 250));
}

/* ---- The large picture ---- */

function enlarge(card) {
  enlarged = card;
  byId("large-name").textContent = card.name;
  updateLarge();
  // The picture itself moves, so that its connection goes on.
  byId("large-picture").replaceChildren(card.image);
  large.showModal();
  assign();
}

function updateLarge() {
  if (!enlarged?.report) return;
  const { state, fps, latency_ms: latency, width, height, reason } = enlarged.report;
  const facts = [`${fps.toFixed(1)} fps`, latency === null ? "" : `${latency.toFixed(0)} ms`,
    width === null ? "" : `${width}×${height}`, reason ?? ""];
  showLarge(state, facts.filter(Boolean).join(" · "));
}

function showLarge(state, facts) {
  setText(byId("large-state"), state);
  byId("large-state").dataset.state = state;
  setText(byId("large-facts"), facts);
}

large.addEventListener("close", () => {
  const card = enlarged;
  enlarged = null;
  if (!card) return;
  card.frame.prepend(card.image);
  card.frame.focus();
  assign();
});
byId("large-close").addEventListener("click", () => large.close());
byId("large-picture").addEventListener("click", () => large.close());

/* ---- Polling ---- */

async function getJson(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(POLL_LIMIT_MS) });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

let polledAt = performance.now();

async function poll() {
  // A computer that slept: its connections are most likely gone, without a word.
  const slept = performance.now() - polledAt > POLL_LIMIT_MS + 10 * POLL_MS;
  try {
    const streams = await getJson("/api/v1/streams");
    if (connected !== true) await welcome();
    showStreams(streams);
    if (slept) for (const card of cards.values()) card.reconnect();
  } catch (error) {
    if (connected !== false) console.warn(error);
    setConnected(false);
  }
  showLink();
  polledAt = performance.now();
  setTimeout(poll, POLL_MS);
}

/** The service is there, for the first time or again; it may be another one now. */
async function welcome() {
  const [model, version] = await Promise.all([getJson("/api/v1/model"), getJson("/api/v1/version")]);
  started = Date.now() - version.uptime_s * 1000;
  const name = document.createElement("b");
  name.textContent = model.name;
  const parts = [name, ` on ${model.actual}`];
  if (model.actual !== model.requested) {
    const differs = document.createElement("span");
    differs.className = "differs";
    differs.textContent = ` (asked for ${model.requested})`;
    parts.push(differs);
  }
  byId("model").replaceChildren(...parts);
  byId("model").title = `${model.input.width}×${model.input.height} pixels, ${model.workers} workers, ` +
    `${model.threads} threads, batches of up to ${model.max_batch}\n${version.name} ${version.version}`;
  setConnected(true);
}

function setConnected(now) {
  if (now === connected) return;
  if (now === false) announce("Connection lost, trying again");
  else if (connected === false) announce("Connected again");
  connected = now;
  document.body.classList.toggle("lost", !now);
  if (!now) for (const card of cards.values()) card.forget();
  assign();
}

function showStreams(streams) {
  const names = new Set(streams.map((stream) => stream.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.remove();
    cards.delete(name);
  }
  streams.forEach((stream, index) => {
    let card = cards.get(stream.name);
    if (!card) {
      card = new Card(stream.name);
      cards.set(stream.name, card);
    }
    const place = byId("streams").children[index];
    if (place !== card.root) byId("streams").insertBefore(card.root, place ?? null);
    card.update(stream);
  });
  const away = streams.filter((stream) => stream.state === "offline").length;
  document.title = away ? `(${away} offline) Maskcast` : "Maskcast";
  updateLarge();
  assign();
}

function showLink() {
  byId("link").dataset.link = connected ? "up" : "lost";
  setText(byId("link-text"), connected ? `up ${span((Date.now() - started) / 1000)}` : "connection lost, trying again");
}

/* ---- Words ---- */

const news = [];

/** Tells screen readers; what happens at once is told in one go. */
function announce(text) {
  if (news.push(text) > 1) return;
  queueMicrotask(() => {
    byId("news").textContent = news.join(". ");
    news.length = 0;
  });
}

/** 75 → "1 min"; the two largest units. */
function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  let rest = Math.floor(seconds);
  return units.slice(first, units[first][0] === "min" ? first + 1 : first + 2).map(([unit, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return `${count} ${unit}`;
  }).join(" ");
}

/** The time of day, with the date when it is another day's. */
function moment(text) {
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString();
}

function share(part, whole) {
  if (part === 0) return "0";
  const percent = 100 * part / whole;
  return percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(1)} %`;
}

async function copyAddress(field, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    // Browsers give the clipboard only to pages that came over HTTPS or from this very computer.
    field.select();
    done = document.execCommand("copy");
  }
  setText(button, done ? "Copied" : "Press Ctrl+C");
  clearTimeout(button.timer);
  button.timer = setTimeout(() => setText(button, "Copy"), 1500);
}

document.addEventListener("visibilitychange", assign);
window.addEventListener("pagehide", () => {
  for (const card of cards.values()) card.setMode("off");
});
window.addEventListener("pageshow", assign);
poll();
renewSnapshots();
