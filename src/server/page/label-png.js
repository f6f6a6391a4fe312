/*
 * Labels as PNG files whose pixels are indices of classes. A browser decodes a PNG to colours, and the index of a class cannot be
 * recovered from them in all cases, so the file is read here.
 */
const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const GREY = 0;
const PALETTE = 3;

const CRC = Uint32Array.from({ length: 256 }, (_, at) => {
  let value = at;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** Passes bytes through a stream that compresses or decompresses. */
async function through(bytes, transform) {
  const stream = new Blob([bytes]).stream().pipeThrough(transform);
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function* chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = SIGNATURE.length;
  while (at + 12 <= bytes.length) {
    const length = view.getUint32(at);
    if (at + 12 + length > bytes.length) return;
    yield [String.fromCharCode(...bytes.subarray(at + 4, at + 8)), bytes.subarray(at + 8, at + 8 + length)];
    at += 12 + length;
  }
}

/** The predictor of PNG's filter 4. */
function paeth(left, above, corner) {
  const guess = left + above - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - above), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? above : corner;
}

/** Reverses the filters of rows of one-byte pixels, in place. */
function unfilter(rows, width, height) {
  const pixels = new Uint8Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const filter = rows[y * (width + 1)];
    const from = y * (width + 1) + 1;
    const to = y * width;
    for (let x = 0; x < width; x += 1) {
      const left = x > 0 ? pixels[to + x - 1] : 0;
      const above = y > 0 ? pixels[to + x - width] : 0;
      const corner = x > 0 && y > 0 ? pixels[to + x - width - 1] : 0;
      const added = [0, left, above, (left + above) >> 1, filter === 4 ? paeth(left, above, corner) : 0][filter];
      if (added === undefined) throw new Error(`row ${y} has the unknown filter ${filter}`);
      pixels[to + x] = rows[from + x] + added;
    }
  }
  return pixels;
}

/**
 * Reads a PNG of 8-bit indices or grey values: `{width, height, pixels}`, with one byte for each pixel. Throws an error for all
 * other files.
 */
export async function decodeLabel(buffer) {
  const bytes = new Uint8Array(buffer);
  if (SIGNATURE.some((byte, at) => bytes[at] !== byte)) throw new Error("the label is not a PNG file");
  let head = null;
  const data = [];
  for (const [type, content] of chunks(bytes)) {
    if (type === "IHDR") head = new DataView(content.buffer, content.byteOffset, content.byteLength);
    else if (type === "IDAT") data.push(content);
  }
  if (head === null || data.length === 0) throw new Error("the label is not a complete PNG file");
  const [width, height, depth, color, interlaced] = [head.getUint32(0), head.getUint32(4), head.getUint8(8), head.getUint8(9), head.getUint8(12)];
  if (depth !== 8 || (color !== PALETTE && color !== GREY) || interlaced !== 0) throw new Error("the label is not an 8-bit palette PNG");
  const packed = new Uint8Array(data.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of data) {
    packed.set(part, at);
    at += part.length;
  }
  const rows = await through(packed, new DecompressionStream("deflate"));
  if (rows.length < height * (width + 1)) throw new Error("the label is not a complete PNG file");
  return { width, height, pixels: unfilter(rows, width, height) };
}

function chunk(type, content) {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  for (let at = 0; at < 4; at += 1) bytes[4 + at] = type.charCodeAt(at);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

/** Writes a palette PNG. `pixels` has one byte for each pixel, `palette` red, green and blue of 256 colours. Resolves to a blob. */
export async function encodeLabel(width, height, pixels, palette) {
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, PALETTE, 0, 0, 0], 8);
  // Rows without a filter: differences of indices of classes have no meaning.
  const rows = new Uint8Array(height * (width + 1));
  for (let y = 0; y < height; y += 1) rows.set(pixels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const packed = await through(rows, new CompressionStream("deflate"));
  const parts = [Uint8Array.from(SIGNATURE), chunk("IHDR", head), chunk("PLTE", palette), chunk("IDAT", packed), chunk("IEND", new Uint8Array(0))];
  return new Blob(parts, { type: "image/png" });
}
