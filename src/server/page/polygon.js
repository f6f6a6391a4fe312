/* Polygons of zones. Coordinates are fractions of the picture's width and height. */

/** Limits of the service (`stream.zone.polygon`). */
export const FEWEST = 3;
export const MOST = 100;
const LEAST_AREA = 1e-4;

/** A pixel of a mask is larger than this. */
const round = (value) => Math.round(value * 10_000) / 10_000;
const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

export const corner = (x, y) => [round(clamp(x, 0, 1)), round(clamp(y, 0, 1))];

export const same = (a, b) => a.length === b.length && a.every(([x, y], at) => x === b[at][0] && y === b[at][1]);

/** The polygon with one corner at another place. */
export const withCorner = (polygon, at, [x, y]) => polygon.map((old, index) => (index === at ? corner(x, y) : old));

/** The polygon with another corner before the corner `at`. */
export const inserted = (polygon, at, [x, y]) => [...polygon.slice(0, at), corner(x, y), ...polygon.slice(at)];

export const without = (polygon, at) => polygon.filter((_, index) => index !== at);

/** The polygon moved by a distance, or by the part of it that keeps the polygon inside the picture. */
export function moved(polygon, [dx, dy]) {
  const [xs, ys] = [polygon.map(([x]) => x), polygon.map(([, y]) => y)];
  const right = clamp(dx, -Math.min(...xs), 1 - Math.max(...xs));
  const down = clamp(dy, -Math.min(...ys), 1 - Math.max(...ys));
  return polygon.map(([x, y]) => corner(x + right, y + down));
}

export const between = ([x, y], [x2, y2]) => [(x + x2) / 2, (y + y2) / 2];

/** Whether the service would refuse it because it covers nothing. */
export function isEmpty(polygon) {
  if (polygon.length < FEWEST) return true;
  const sides = polygon.map(([x, y], at) => [x, y, ...polygon[(at + 1) % polygon.length]]);
  return Math.abs(sides.reduce((sum, [x, y, x2, y2]) => sum + x * y2 - x2 * y, 0)) / 2 < LEAST_AREA;
}

/** A place for the name: the topmost corner, of two at the same height the left one. */
export const top = (polygon) => polygon.reduce((best, [x, y]) => (y < best[1] || (y === best[1] && x < best[0]) ? [x, y] : best));

/** "34 %, 56 %" */
export const place = ([x, y]) => `${(100 * x).toFixed(1)} %, ${(100 * y).toFixed(1)} %`;

/* ---- Keys ---- */

const STEP = 0.01;
const FINE_STEP = 0.001;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The distance that an arrow key moves; with Shift a tenth of it; null for other keys. */
export function arrow({ key, shiftKey }) {
  const step = shiftKey ? FINE_STEP : STEP;
  return ARROWS[key] ? ARROWS[key].map((direction) => direction * step) : null;
}
