/* Formats numbers and times for display. */

/** What is shown instead of the history of a service that has none. */
export const HISTORY_OFF = "The history is off: set dir in [history] of the configuration file, or run the service with a state directory (STATE_DIRECTORY), and restart it.";

/** A duration with its two largest units: 3700 → "1 h 1 min". */
export function span(seconds) {
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

/** The time of day. Spaces, which some languages have in it, become non-breaking. */
export const timeOfDay = (at) => at.toLocaleTimeString().replaceAll(/\s/g, "\u00a0");

/** The time of day, preceded by the date if it is not today. */
export function moment(text) {
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  return today ? timeOfDay(at) : `${at.toLocaleDateString()} ${timeOfDay(at)}`;
}

/** A part of a whole in percent. */
export function share(part, whole) {
  if (part === 0) return "0";
  const percent = 100 * part / whole;
  return percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(1)} %`;
}

/** A share from 0 to 1 in percent: 0.124 → "12.4 %". Spaces are non-breaking. */
export const percent = (value) => (value === 0 ? "0 %" : share(value, 1)).replaceAll(" ", "\u00a0");

/** 1536000 → "1.5 MB" */
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = count;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

/** Kilobits per second: 1423 → "1.4 Mbit/s", 87 → "87 kbit/s" */
export const bitrate = (kbits) => (kbits < 1000 ? `${kbits} kbit/s` : `${(kbits / 1000).toFixed(1)} Mbit/s`);

/** 75.2 → "1:15" */
export function clock(seconds) {
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A time for a file name: "2026-11-25T14-03-22". In local time. */
export function fileTime(at) {
  const local = new Date(at.getTime() - at.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19).replaceAll(":", "-");
}
