/*
 * The shares of the newest mask, beside the legend and the names of zones. They come as server-sent events; without them, from
 * the list of streams, which the page requests anyway.
 */
import { ofStream } from "./api.js";
import { Live } from "./live.js";
import * as overlay from "./overlay.js";
import * as zones from "./zones.js";

/** The list of streams is used when no message has arrived for this time. */
const STALE_MS = 3000;

const live = new Live("mask", ({ shares, zones: byZone }) => show(shares, byZone));

/** Shows the shares of a stream; null ends that. */
export function open(stream) {
  live.open(stream === null ? null : ofStream(stream, "/masks?every=1s"));
}

/** Takes the shares from a report of the stream. */
export function update(report) {
  // Without a current mask there are no messages, and the report has no shares.
  if (report.shares !== null && live.isFresh(STALE_MS)) return;
  show(report.shares ?? null, Object.fromEntries((report.zones ?? []).filter((zone) => zone.shares !== null).map((zone) => [zone.name, zone.shares])));
}

function show(shares, byZone) {
  overlay.showShares(shares);
  zones.showShares(byZone);
}
