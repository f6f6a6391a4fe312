/*
 * Zones and rules of a stream as settings. The service replaces whole lists, so that a change requests the newest lists
 * first: another client may have changed them.
 */
import { getJson, ofStream, patchJson } from "./api.js";

let last = Promise.resolve();

/**
 * Changes the lists of a stream. `change` gets `{zone, rule}` and returns the keys to replace. Changes run one after the
 * other. Returns the report of the stream; throws the [Refusal] of the service.
 */
export function changeLists(stream, change) {
  const run = async () => {
    const { config } = await getJson(ofStream(stream));
    const patch = change({ zone: config.zone ?? [], rule: config.rule ?? [] });
    if (patch.rule) patch.rule = patch.rule.map(compact);
    return patchJson(ofStream(stream), patch);
  };
  last = last.then(run, run);
  return last;
}

/** The text of an error. The message of a single wrong setting is in the error's own message. */
export function textOf(error) {
  const errors = error.errors ?? [];
  if (errors.length < 2) return error.message;
  return [error.message, ...errors.map(({ key, problem }) => `${key}: ${problem}`)].join("; ");
}

/* ---- Rules ---- */

/** Defaults of the keys that the service adds to a rule (`[[stream.rule]]`). */
export const DEFAULTS = { cooldown: "0s", record: false, pre_roll: "5s", post_roll: "10s" };

/** The share at which a condition ends, if none is set. */
export const defaultRelease = ({ when, share }) => (when === "below" ? Math.min(1.5 * share, (share + 1) / 2) : share / 2);

export const defaultFor = ({ when }) => (when === "absent" ? "1m" : "2s");

/** A rule without the keys that have their defaults, so that the configuration file is easy to read. */
export function compact(rule) {
  const kept = Object.entries(rule).filter(([key, value]) => {
    if (value === null || value === undefined) return false;
    if (key === "release") return Math.abs(value - defaultRelease(rule)) > 1e-9;
    if (key === "for") return value !== defaultFor(rule);
    return DEFAULTS[key] !== value;
  });
  return Object.fromEntries(kept);
}
