/*
 * Superpixels: regions of similar colour, by SLIC (Achanta et al. 2012, "SLIC Superpixels Compared to State-of-the-Art Superpixel
 * Methods", doi:10.1109/TPAMI.2012.120). Runs in a worker, because a large picture takes about a second.
 */
const ITERATIONS = 6;
/** The weight of the distance in place against that in colour. */
const COMPACTNESS = 10;

const LINEAR = Float32Array.from({ length: 256 }, (_, value) => {
  const part = value / 255;
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
});

/** CIE Lab of each pixel, three numbers each. */
function toLab(rgba) {
  const count = rgba.length / 4;
  const lab = new Float32Array(3 * count);
  const f = (value) => (value > 0.008856 ? Math.cbrt(value) : 7.787 * value + 16 / 116);
  for (let at = 0; at < count; at += 1) {
    const [r, g, b] = [LINEAR[rgba[4 * at]], LINEAR[rgba[4 * at + 1]], LINEAR[rgba[4 * at + 2]]];
    const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
    const y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
    const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089);
    lab.set([116 * y - 16, 500 * (x - y), 200 * (y - z)], 3 * at);
  }
  return lab;
}

/** Gives connected pieces that are too small to the region before them. Returns the number of each pixel's region. */
function connected(parts, width, height, least) {
  const found = new Int32Array(parts.length).fill(-1);
  const stack = new Int32Array(parts.length);
  let next = 0;
  for (let start = 0; start < parts.length; start += 1) {
    if (found[start] >= 0) continue;
    const beside = start % width > 0 ? found[start - 1] : start >= width ? found[start - width] : -1;
    let [count, read] = [1, 0];
    stack[0] = start;
    found[start] = next;
    while (read < count) {
      const at = stack[read];
      read += 1;
      const x = at % width;
      for (const [inside, neighbour] of [[x > 0, at - 1], [x < width - 1, at + 1], [at >= width, at - width], [at < parts.length - width, at + width]]) {
        if (!inside || found[neighbour] >= 0 || parts[neighbour] !== parts[start]) continue;
        found[neighbour] = next;
        stack[count] = neighbour;
        count += 1;
      }
    }
    if (count < least && beside >= 0) for (let at = 0; at < count; at += 1) found[stack[at]] = beside;
    else next += 1;
  }
  return found;
}

/** The number of the superpixel of each pixel. `rgba` are the bytes of the picture; `size` is the wanted side of a superpixel in pixels. */
export function superpixels(rgba, width, height, size) {
  const lab = toLab(rgba);
  const [columns, rows] = [Math.max(1, Math.round(width / size)), Math.max(1, Math.round(height / size))];
  const [stepX, stepY] = [width / columns, height / rows];
  const count = columns * rows;
  // Lightness, a, b, x and y of the middle of each superpixel.
  const centres = new Float32Array(5 * count);
  for (let at = 0; at < count; at += 1) {
    const x = Math.floor(((at % columns) + 0.5) * stepX);
    const y = Math.floor((Math.floor(at / columns) + 0.5) * stepY);
    const from = 3 * (y * width + x);
    centres.set([lab[from], lab[from + 1], lab[from + 2], x, y], 5 * at);
  }
  const parts = new Int32Array(width * height);
  const distances = new Float32Array(width * height);
  const weight = (COMPACTNESS / Math.max(stepX, stepY)) ** 2;
  for (let turn = 0; turn < ITERATIONS; turn += 1) {
    distances.fill(Infinity);
    for (let part = 0; part < count; part += 1) {
      const [l, a, b, cx, cy] = centres.subarray(5 * part, 5 * part + 5);
      const [left, right] = [Math.max(0, Math.floor(cx - stepX)), Math.min(width, Math.ceil(cx + stepX) + 1)];
      const [top, bottom] = [Math.max(0, Math.floor(cy - stepY)), Math.min(height, Math.ceil(cy + stepY) + 1)];
      for (let y = top; y < bottom; y += 1) {
        for (let x = left; x < right; x += 1) {
          const at = y * width + x;
          const [dl, da, db] = [lab[3 * at] - l, lab[3 * at + 1] - a, lab[3 * at + 2] - b];
          const distance = dl * dl + da * da + db * db + weight * ((x - cx) ** 2 + (y - cy) ** 2);
          if (distance >= distances[at]) continue;
          distances[at] = distance;
          parts[at] = part;
        }
      }
    }
    const sums = new Float64Array(6 * count);
    for (let at = 0; at < parts.length; at += 1) {
      const to = 6 * parts[at];
      sums[to] += lab[3 * at];
      sums[to + 1] += lab[3 * at + 1];
      sums[to + 2] += lab[3 * at + 2];
      sums[to + 3] += at % width;
      sums[to + 4] += Math.floor(at / width);
      sums[to + 5] += 1;
    }
    for (let part = 0; part < count; part += 1) {
      const pixels = sums[6 * part + 5];
      if (pixels > 0) for (let n = 0; n < 5; n += 1) centres[5 * part + n] = sums[6 * part + n] / pixels;
    }
  }
  return connected(parts, width, height, (stepX * stepY) / 4);
}
