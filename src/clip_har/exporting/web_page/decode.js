// From an image file to upright pixels, by the browser's decoder: refused if it is too large, before it is decoded.
// Sizes and crops are in preprocess.js. As in clip-har's decoding.py, transparency becomes white.

const TRUNCATED = "ends early; the missing part may be grey";
const HEAD = 1 << 22; // bytes in which a file's size in pixels is looked for
const TAIL = 1 << 16; // bytes in which the end of a JPEG is looked for
const TILE = 4096; // pixels of a canvas' side that every browser allows
const BYTES_PER_PIXEL = 4; // of a decoded image

const ascii = (view, at, length) => {
  let text = "";
  for (let i = at; i < at + length && i < view.byteLength; i += 1) text += String.fromCharCode(view.getUint8(i));
  return text;
};

// The format and the size in pixels that a file's head states; without a size where it is not known.
export function inspect(buffer) {
  const view = new DataView(buffer);
  if (view.byteLength < 16) return { kind: null };
  if (view.getUint16(0) === 0xffd8) return { kind: "JPEG", ...jpegSize(view) };
  if (view.byteLength >= 26 && view.getUint32(0) === 0x89504e47) {
    return { kind: "PNG", width: view.getUint32(16), height: view.getUint32(20) };
  }
  if (/^GIF8[79]a$/.test(ascii(view, 0, 6))) {
    return { kind: "GIF", width: view.getUint16(6, true), height: view.getUint16(8, true) };
  }
  if (ascii(view, 0, 2) === "BM" && view.byteLength >= 26) {
    return { kind: "BMP", width: view.getInt32(18, true), height: Math.abs(view.getInt32(22, true)) };
  }
  if (ascii(view, 0, 4) === "RIFF" && ascii(view, 8, 4) === "WEBP") return { kind: "WEBP", ...webpSize(view) };
  if (ascii(view, 4, 4) === "ftyp") {
    const brand = ascii(view, 8, 4);
    return { kind: brand.startsWith("avi") ? "AVIF" : "HEIF", ...containerSize(view) };
  }
  if (/^(II\*\0|MM\0\*)$/.test(ascii(view, 0, 4))) return { kind: "TIFF" };
  return { kind: null };
}

function jpegSize(view) {
  let at = 2;
  while (at + 9 < view.byteLength) {
    if (view.getUint8(at) !== 0xff) return {};
    const marker = view.getUint8(at + 1);
    if (marker === 0xff) {
      at += 1;
    } else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return { width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    } else if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
      at += 2;
    } else {
      at += 2 + view.getUint16(at + 2);
    }
  }
  return {};
}

function webpSize(view) {
  if (view.byteLength < 30) return {};
  const kind = ascii(view, 12, 4);
  if (kind === "VP8 ") return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
  }
  const three = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16) + 1;
  return { width: three(24), height: three(27) };
}

// The largest "ispe" of AVIF and HEIF: grids list their tiles as well.
function containerSize(view) {
  let found = {};
  for (let at = 4; at + 16 <= Math.min(view.byteLength, TAIL); at += 1) {
    if (view.getUint8(at) !== 0x69 || ascii(view, at, 4) !== "ispe") continue;
    const size = { width: view.getUint32(at + 8), height: view.getUint32(at + 12) };
    if (!found.width || size.width * size.height > found.width * found.height) found = size;
  }
  return found;
}

const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

// limits: { pixels, side, bytes, file_bytes } of model.json.
export function checkSize({ kind, width, height }, limits) {
  if (!width || !height) return;
  const size = `${width} x ${height} pixels`;
  if (Math.max(width, height) > limits.side) throw new Error(`${size}, more than ${limits.side} on a side`);
  if (width * height > limits.pixels) throw new Error(`${size}, more than ${grouped(limits.pixels)} in all`);
  const needed = kind === "JPEG" ? 0 : BYTES_PER_PIXEL * width * height;
  if (needed > limits.bytes) {
    const megabytes = (bytes) => Math.round(bytes / 1e6);
    throw new Error(`${size}, which take ${megabytes(needed)} MB, more than ${megabytes(limits.bytes)}`);
  }
}

// What is known of a file before it is decoded: { kind, width, height }.
// Throws an Error whose message is the reason, if it is empty or too large.
export async function check(file, limits) {
  if (!file.size) throw new Error("empty file");
  if (file.size > limits.file_bytes) {
    throw new Error(`a file of ${Math.round(file.size / 1e6)} MB, more than ${limits.file_bytes / 1e6}`);
  }
  const head = inspect(await file.slice(0, HEAD).arrayBuffer());
  checkSize(head, limits);
  return head;
}

async function endsEarly(file, kind) {
  if (kind !== "JPEG") return false;
  const tail = new Uint8Array(await file.slice(Math.max(0, file.size - TAIL)).arrayBuffer());
  for (let i = tail.length - 2; i >= 0; i -= 1) if (tail[i] === 0xff && tail[i + 1] === 0xd9) return false;
  return true;
}

// Upright pixels, as `resize` reads them, and a warning. close() frees the memory.
export async function decode(file, head, limits) {
  const early = await endsEarly(file, head.kind);
  const whole = early ? new Blob([file, new Uint8Array([0xff, 0xd9])]) : file;
  const bitmap = await bitmapOf(whole, head.kind);
  try {
    checkSize({ kind: head.kind, width: bitmap.width, height: bitmap.height }, limits);
  } catch (error) {
    bitmap.close();
    throw error;
  }
  return { source: sourceOf(bitmap), close: () => bitmap.close(), warning: early ? TRUNCATED : null };
}

// Pixels as they are in the file: clip-har ignores colour profiles too. The orientation of EXIF is applied.
async function bitmapOf(blob, kind) {
  try {
    return await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    if (kind === "HEIF" || kind === "TIFF") {
      throw new Error(`${kind}, which this browser cannot decode; save it as JPEG or PNG`);
    }
    throw new Error(kind ? `damaged or unusual ${kind}` : "not an image that this browser can decode");
  }
}

function sourceOf(bitmap) {
  const { width, height } = bitmap;
  const read = (top, rows) => {
    if (width <= TILE && rows <= TILE) return pixels(bitmap, 0, top, width, rows);
    const result = new Uint8ClampedArray(4 * width * rows);
    for (let left = 0; left < width; left += TILE) {
      for (let down = 0; down < rows; down += TILE) {
        const [across, tall] = [Math.min(TILE, width - left), Math.min(TILE, rows - down)];
        const tile = pixels(bitmap, left, top + down, across, tall);
        for (let y = 0; y < tall; y += 1) {
          const row = tile.subarray(4 * y * across, 4 * (y + 1) * across);
          result.set(row, 4 * ((down + y) * width + left));
        }
      }
    }
    return result;
  };
  return { width, height, channels: 4, read };
}

// Drawn one to one on white, so that the canvas resamples nothing and what it returns is opaque.
function pixels(bitmap, left, top, width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, -left, -top);
  return context.getImageData(0, 0, width, height).data;
}
