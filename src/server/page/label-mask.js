/*
 * The label of a frame while it is edited: one byte for each pixel, with the index of its class. Changes are drawn between `begin`
 * and `end`, and can be undone. The history keeps the changed rectangles only, up to a number of bytes.
 */

/** The value of pixels without a class. The trainer leaves them out. */
export const VOID = 255;
/** The history forgets its oldest changes above this number of bytes. */
const HISTORY_BYTES = 64 << 20;

const EMPTY = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };

/** The smallest rectangle that contains both. `right` and `bottom` are exclusive. */
function union(a, b) {
  return { left: Math.min(a.left, b.left), top: Math.min(a.top, b.top), right: Math.max(a.right, b.right), bottom: Math.max(a.bottom, b.bottom) };
}

export class LabelMask {
  #before;
  #dirty = EMPTY;
  #isOpen = false;
  /** Changes that can be undone, the newest last: `{rect, before, after}`. */
  #done = [];
  #undone = [];
  #bytes = 0;

  constructor(width, height, pixels) {
    [this.width, this.height, this.pixels] = [width, height, pixels];
    this.#before = new Uint8Array(pixels.length);
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** Whether a change has begun. */
  get isOpen() {
    return this.#isOpen;
  }

  at(x, y) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    return column < 0 || row < 0 || column >= this.width || row >= this.height ? VOID : this.pixels[row * this.width + column];
  }

  /* ---- Changes ---- */

  begin() {
    if (this.#isOpen) this.end();
    this.#before.set(this.pixels);
    [this.#isOpen, this.#dirty] = [true, EMPTY];
  }

  /** Ends the change. Returns whether pixels differ. */
  end() {
    if (!this.#isOpen) return false;
    this.#isOpen = false;
    const rect = this.#changed();
    if (!rect) return false;
    const change = { rect, before: this.#cut(this.#before, rect), after: this.#cut(this.pixels, rect) };
    for (const old of this.#undone) this.#bytes -= 2 * old.before.length;
    this.#undone = [];
    this.#done.push(change);
    this.#bytes += 2 * change.before.length;
    while (this.#bytes > HISTORY_BYTES && this.#done.length > 1) this.#bytes -= 2 * this.#done.shift().before.length;
    return true;
  }

  /** Takes the change back as if it had not begun. Returns the rectangle that was restored, or null. */
  cancel() {
    if (!this.#isOpen) return null;
    this.#isOpen = false;
    const rect = this.#dirty;
    if (rect.left >= rect.right) return null;
    this.#paste(this.#cut(this.#before, rect), rect);
    return rect;
  }

  /** Takes the newest change back. Returns its rectangle, or null without one. */
  undo() {
    this.end();
    const change = this.#done.pop();
    if (!change) return null;
    this.#undone.push(change);
    this.#paste(change.before, change.rect);
    return change.rect;
  }

  redo() {
    this.end();
    const change = this.#undone.pop();
    if (!change) return null;
    this.#done.push(change);
    this.#paste(change.after, change.rect);
    return change.rect;
  }

  /** The rectangle of the pixels that differ from those before the change; null if none does. */
  #changed() {
    const { left, top, right, bottom } = this.#dirty;
    let found = EMPTY;
    for (let y = top; y < bottom; y += 1) {
      const row = y * this.width;
      for (let x = left; x < right; x += 1) {
        if (this.pixels[row + x] !== this.#before[row + x]) found = union(found, { left: x, top: y, right: x + 1, bottom: y + 1 });
      }
    }
    return found.left < found.right ? found : null;
  }

  #cut(pixels, { left, top, right, bottom }) {
    const part = new Uint8Array((right - left) * (bottom - top));
    for (let y = top; y < bottom; y += 1) part.set(pixels.subarray(y * this.width + left, y * this.width + right), (y - top) * (right - left));
    return part;
  }

  #paste(part, { left, top, right, bottom }) {
    const width = right - left;
    for (let y = top; y < bottom; y += 1) this.pixels.set(part.subarray((y - top) * width, (y - top + 1) * width), y * this.width + left);
  }

  #touch(left, top, right, bottom) {
    const rect = { left: Math.max(0, left), top: Math.max(0, top), right: Math.min(this.width, right), bottom: Math.min(this.height, bottom) };
    if (rect.left >= rect.right || rect.top >= rect.bottom) return null;
    this.#dirty = union(this.#dirty, rect);
    return rect;
  }

  /* ---- Drawing: each returns the rectangle that may have changed, or null ---- */

  /** Draws a line with round ends: all pixels whose middle is at most `radius` from it. */
  line([x1, y1], [x2, y2], radius, value) {
    const rect = this.#touch(Math.floor(Math.min(x1, x2) - radius), Math.floor(Math.min(y1, y2) - radius),
      Math.ceil(Math.max(x1, x2) + radius) + 1, Math.ceil(Math.max(y1, y2) + radius) + 1);
    if (!rect) return null;
    const [dx, dy] = [x2 - x1, y2 - y1];
    const length = dx * dx + dy * dy;
    for (let y = rect.top; y < rect.bottom; y += 1) {
      for (let x = rect.left; x < rect.right; x += 1) {
        const [px, py] = [x + 0.5 - x1, y + 0.5 - y1];
        const along = length === 0 ? 0 : Math.max(0, Math.min(1, (px * dx + py * dy) / length));
        const [ex, ey] = [px - along * dx, py - along * dy];
        if (ex * ex + ey * ey <= radius * radius) this.pixels[y * this.width + x] = value;
      }
    }
    // The smallest brush draws the pixel below its middle, whatever its distance.
    const [column, row] = [Math.floor(x2), Math.floor(y2)];
    if (column >= 0 && row >= 0 && column < this.width && row < this.height) this.pixels[row * this.width + column] = value;
    return rect;
  }

  /** Fills a polygon by the even-odd rule: all pixels whose middle is inside. */
  polygon(points, value) {
    const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
    const rect = this.#touch(Math.floor(Math.min(...xs)), Math.floor(Math.min(...ys)), Math.ceil(Math.max(...xs)) + 1, Math.ceil(Math.max(...ys)) + 1);
    if (!rect) return null;
    for (let y = rect.top; y < rect.bottom; y += 1) {
      const middle = y + 0.5;
      const crossings = [];
      points.forEach(([x1, y1], at) => {
        const [x2, y2] = points[(at + 1) % points.length];
        if (y1 <= middle !== y2 <= middle) crossings.push(x1 + ((middle - y1) * (x2 - x1)) / (y2 - y1));
      });
      crossings.sort((a, b) => a - b);
      for (let at = 0; at + 1 < crossings.length; at += 2) {
        const from = Math.max(rect.left, Math.ceil(crossings[at] - 0.5));
        const to = Math.min(rect.right, Math.ceil(crossings[at + 1] - 0.5));
        if (from < to) this.pixels.fill(value, y * this.width + from, y * this.width + to);
      }
    }
    return rect;
  }

  /** Fills the connected region of one class that contains this pixel. */
  fill(x, y, value) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    if (column < 0 || row < 0 || column >= this.width || row >= this.height) return null;
    const { width, height, pixels } = this;
    const wanted = pixels[row * width + column];
    if (wanted === value) return null;
    let rect = EMPTY;
    // Places in rows that are not yet filled.
    const open = [row * width + column];
    while (open.length > 0) {
      const at = open.pop();
      if (pixels[at] !== wanted) continue;
      const start = at - (at % width);
      let [left, right] = [at, at + 1];
      while (left > start && pixels[left - 1] === wanted) left -= 1;
      while (right < start + width && pixels[right] === wanted) right += 1;
      pixels.fill(value, left, right);
      rect = union(rect, { left: left - start, top: start / width, right: right - start, bottom: start / width + 1 });
      for (const beside of [start - width, start + width]) {
        if (beside < 0 || beside >= width * height) continue;
        for (let x2 = left; x2 < right; x2 += 1) {
          const place = x2 - start + beside;
          if (pixels[place] === wanted && (x2 === left || pixels[place - 1] !== wanted)) open.push(place);
        }
      }
    }
    return this.#touch(rect.left, rect.top, rect.right, rect.bottom);
  }

  /** Fills all pixels of the superpixel below this place. `parts` has the number of the superpixel of each pixel. */
  fillPart(parts, x, y, value) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    if (column < 0 || row < 0 || column >= this.width || row >= this.height) return null;
    const wanted = parts[row * this.width + column];
    let rect = EMPTY;
    for (let at = 0; at < parts.length; at += 1) {
      if (parts[at] !== wanted) continue;
      this.pixels[at] = value;
      const [px, py] = [at % this.width, Math.floor(at / this.width)];
      rect = union(rect, { left: px, top: py, right: px + 1, bottom: py + 1 });
    }
    return this.#touch(rect.left, rect.top, rect.right, rect.bottom);
  }

  /** Replaces all pixels. */
  replace(pixels) {
    this.pixels.set(pixels);
    return this.#touch(0, 0, this.width, this.height);
  }
}

/** The number of pixels that differ. */
export function countDifferent(a, b) {
  let count = 0;
  for (let at = 0; at < a.length; at += 1) if (a[at] !== b[at]) count += 1;
  return count;
}
