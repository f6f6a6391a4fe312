/* Colours of classes that can be seen on the page's background. */

/** WCAG 2.2, 1.4.11: parts of graphics have this contrast to what is beside them. */
const LEAST_CONTRAST = 3;

const channels = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));

/** Relative luminance (WCAG 2.2) of a colour with channels from 0 to 255. */
function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => (value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

/** The colour `#rrggbb`, mixed with as much black or white as its contrast to `ground` needs. */
export function readable(hex, ground) {
  const [color, behind] = [channels(hex), channels(ground)];
  const end = luminance(behind) > 0.18 ? 0 : 255;
  for (let part = 0; part <= 1; part += 0.05) {
    const mixed = color.map((value) => Math.round(value + (end - value) * part));
    if (contrast(mixed, behind) >= LEAST_CONTRAST) return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  }
  return end === 0 ? "#000000" : "#ffffff";
}
