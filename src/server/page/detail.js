/* The view of one stream, with its state and settings. */
import { ofStream, remove } from "./api.js";
import { byId, complain, confirmed, make, setText } from "./dom.js";
import * as drift from "./drift.js";
import { editStream } from "./editor.js";
import * as events from "./events.js";
import { cards, isAway, numbers, order, showReason, showState, showWeakened, words } from "./grid.js";
import * as history from "./history.js";
import * as overlay from "./overlay.js";
import * as recordings from "./recordings.js";
import * as rules from "./rules.js";
import { session } from "./session.js";
import * as shares from "./shares.js";
import { saveSnapshot } from "./snapshot.js";
import { bitrate, moment, share } from "./words.js";
import * as zones from "./zones.js";

const stage = byId("stage");

/** The card whose stream is shown; null in the grid view. */
let shown = null;
/** The models of the service; empty while one is being loaded. */
let models = [];
/** The parts of the view that show something of the stream. */
const PARTS = [overlay, zones, rules, shares, events, history, recordings];

export const current = () => shown;

export function open(card) {
  if (shown === card) return;
  shown?.takeBack();
  shown = card;
  const { name } = card;
  setText(byId("detail-name"), name);
  // The video element is moved, so that its connection stays open.
  stage.replaceChildren(card.player.root, zones.layer);
  card.player.resume();
  byId("mask").href = ofStream(name, "/mask.png");
  for (const part of PARTS) part.open(name);
  update();
  byId("detail-name").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

/** Moves the video back into its card. Returns the card that was shown. */
export function close() {
  const card = shown;
  if (!card) return null;
  shown = null;
  if (document.fullscreenElement) document.exitFullscreen();
  for (const part of PARTS) part.open(null);
  card.takeBack();
  return card;
}

/** Sets whether the service has a history. */
export function setHistory(isOn) {
  for (const part of [events, history]) part.setHistory(isOn);
}

export function setModels(reports) {
  models = reports;
}

/** Shows the newest report of the stream. */
export function update() {
  if (!shown?.report) return;
  const { report, player } = shown;
  showState(byId("detail-state"), report.state, report.since);
  setText(byId("detail-facts"), numbers(report).join(" · "));
  showReason(byId("detail-reason"), report);
  showWeakened(byId("detail-weakened"), report);
  overlay.update(report.legend);
  zones.update(report, player.size);
  for (const part of [rules, shares, events, history, drift]) part.update(report);
  showFacts(report, player);
  if (byId("rtsp").value !== report.links.rtsp) byId("rtsp").value = byId("rtsp").title = report.links.rtsp;
  const names = order();
  const at = names.indexOf(shown.name);
  step(byId("previous"), names[at - 1]);
  step(byId("next"), names[at + 1]);
  byId("steps").hidden = names.length < 2;
  const collects = session.mayOperate() && Boolean(report.config?.collect);
  byId("collection-open").hidden = !collects;
  if (collects) byId("collection-open").href = `#/${encodeURIComponent(shown.name)}/collection`;
  byId("edit").hidden = byId("remove").hidden = !session.mayOperate() || !report.config;
  recordings.setRecorded(Boolean(report.config?.record?.dir));
}

export function forget() {
  if (!shown) return;
  showState(byId("detail-state"), "unknown");
  setText(byId("detail-facts"), "connection lost, trying again");
  byId("detail-reason").hidden = byId("detail-weakened").hidden = true;
}

function step(link, name) {
  if (name === undefined) link.removeAttribute("href");
  else link.href = `#/${name}`;
  // Without an address, it would have no role, and its label would be ignored.
  link.setAttribute("role", "link");
  link.ariaDisabled = String(name === undefined);
}

/** The encoder and its bitrate: "H.264 x264, 1.4 Mbit/s". */
function video(h264) {
  if (!h264) return "–";
  return [`H.264 ${h264.encoder}`, h264.bitrate === null ? "" : bitrate(h264.bitrate)].filter(Boolean).join(", ");
}

const rateControl = ({ rate_control: control, bitrate_limit: limit }) =>
  control === "quality" ? `Constant quality, up to ${bitrate(limit)}` : `Constant bitrate of ${bitrate(limit)}`;

/** What is hidden in the frames, and the tooltip. */
function redaction({ redaction: hidden, published }) {
  if (!hidden) return ["none", "Frames are published whole; see [stream.redact]"];
  const frames = `${hidden.hidden_frames} of ${published} frames were hidden as a whole`;
  return [`${hidden.classes.join(", ")} (${hidden.style})`, frames];
}

/** Masks per second, the age of the newest and the share for which the model did not run, and the tooltip. */
function masks({ masks_needed: isNeeded, masks_per_second: rate, mask_age_ms: age, mask_runs_skipped_ratio: skipped, config }) {
  if (!isNeeded) return ["paused", 'Nothing uses the masks, so the model does not run; masks = "always" changes that'];
  const limit = config.mask_rate === "auto" ? "one per frame" : `${config.mask_rate} per second (mask_rate)`;
  const still = skipped > 0 ? `, ${(100 * skipped).toFixed(0)} % without motion` : "";
  const title = `Masks made by the model, or confirmed because nothing moved (gate: ${config.gate}); limit: ${limit}`;
  return [age === null ? "–" : `${rate.toFixed(1)} per second, newest ${age.toFixed(0)} ms old${still}`, title];
}

/** The part of the frame that the model gets, its tiles, and the tooltip. */
function seen({ config: { crop, tiles } }) {
  const [x, y, width, height] = crop.map((part) => `${Math.round(1000 * part) / 10} %`);
  const isWhole = crop.join() === "0,0,1,1";
  const part = isWhole ? "whole frame" : `${width} × ${height} at ${x}, ${y}`;
  const title = isWhole ? "" : `crop = [${crop.join(", ")}]: the rest of the frame has no mask and does not count in shares`;
  return [tiles === "1x1" ? part : `${part}, in ${tiles.replace("x", "×")} tiles`, title];
}

/** The model of the stream and its file, and the tooltip. */
function modelOf(report, model) {
  if (!model) return ["–", ""];
  const file = models.length > 1 ? `${report.model}: ${model.name}` : model.name;
  return [file, `${model.path}\nstreams: ${model.streams.join(", ")}`];
}

/** Rows of term, value and tooltip. */
function facts(report, player) {
  const { viewers } = report;
  const model = models.find((known) => known.model === report.model);
  const watching = Object.values(viewers).reduce((sum, count) => sum + count, 0);
  const reasons = Object.entries(report.dropped_by_reason).map(([reason, count]) => `${reason}: ${count}`);
  return [
    ["State", `${words(report.state)} since ${moment(report.since)}`],
    ["Rate", isAway(report.state) ? "–" : `${report.fps.toFixed(1)} fps`],
    ["Masks", ...masks(report)],
    ["Delay", report.latency_ms === null ? "–" : `${report.latency_ms.toFixed(0)} ms`, "Median time from capture to publication"],
    ["Size", report.width === null ? "–" : `${report.width}×${report.height}`],
    ["Video", video(report.h264), report.h264 ? rateControl(report.h264) : "No viewer, recording or push needs H.264"],
    ["Transport", player.transport],
    ["Viewers", String(watching), Object.entries(viewers).map(([kind, count]) => `${kind}: ${count}`).join("\n")],
    ["Dropped", share(report.dropped, report.captured), [`${report.dropped} of ${report.captured} frames`, ...reasons].join("\n")],
    ["Seen", ...seen(report)],
    ["Model", ...modelOf(report, model)],
    ["Provider", model ? model.actual : "–", model && model.actual !== model.requested ? `${model.requested} was requested` : ""],
    ["Source", report.source, report.show],
    ["Redaction", ...redaction(report)],
  ];
}

function showFacts(report, player) {
  const list = byId("facts");
  for (const [term, text, title] of facts(report, player)) {
    let row = list.querySelector(`[data-fact="${term}"]`);
    if (!row) {
      row = make("div", { dataset: { fact: term } }, make("dt", {}, term), make("dd"));
      list.append(row);
    }
    setText(row.lastChild, text);
    row.title = title ?? "";
  }
}

/* ---- Buttons ---- */

export function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen().catch((error) => complain(`Full screen failed: ${error.message}`));
  // iPhones support full screen only for video elements.
  else shown?.player.video.webkitEnterFullscreen?.();
}

byId("fullscreen").addEventListener("click", toggleFullscreen);
stage.addEventListener("dblclick", toggleFullscreen);
byId("snapshot").addEventListener("click", () => saveSnapshot(shown.name));
byId("rtsp").addEventListener("focus", () => byId("rtsp").select());
byId("edit").addEventListener("click", () => editStream(shown.name));

byId("remove").addEventListener("click", async () => {
  const { name } = shown;
  const text = "Its source and its viewers are disconnected. Its recordings are kept.";
  if (!(await confirmed(`Remove ${name}?`, text, "Remove stream"))) return;
  try {
    await remove(ofStream(name));
    window.location.hash = "#/";
  } catch (error) {
    complain(`${name}: the stream was not removed: ${error.message}`);
  }
});

byId("copy").addEventListener("click", async () => {
  const field = byId("rtsp");
  let done = true;
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    // Browsers offer the clipboard only to pages from HTTPS or from a loopback address.
    field.select();
    done = document.execCommand("copy");
  }
  const button = byId("copy");
  button.dataset.note = done ? "Copied" : "Press Ctrl+C";
  clearTimeout(button.timer);
  button.timer = setTimeout(() => delete button.dataset.note, 1500);
});
