// Resampling of 8-bit pixels in two passes, bit for bit as in Pillow's Resample.c or in torch's interpolation.
// Which size an image gets is in preprocess.js. Not the browser's own resampling, whose filter is not specified.

const PILLOW_BITS = 22; // of the fraction of Pillow's coefficients: 32, without 8 of the pixel and 2 for overflow

function bicubic(x) {
  const a = -0.5;
  const at = Math.abs(x);
  if (at < 1) return ((a + 2) * at - (a + 3)) * at * at + 1;
  if (at < 2) return (((at - 5) * at + 8) * at - 4) * a;
  return 0;
}

function bilinear(x) {
  return Math.max(0, 1 - Math.abs(x));
}

const FILTERS = { bicubic: { weight: bicubic, support: 2 }, bilinear: { weight: bilinear, support: 1 } };

// torch rescales its weights to 16 bits, with as many bits of fraction as the largest allows.
function torchBits(largest) {
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits += 1;
  return bits;
}

// The pixels that each output pixel is made of, and their weights as integers.
//   size: pixels of the input; start, stop: the part of it that is resampled; outputs: pixels of the output.
//   arithmetic: "pillow" or "torch".
export function coefficients(size, start, stop, outputs, filter, arithmetic) {
  const scale = Math.fround(stop - start) / outputs; // Pillow's box is of 32-bit numbers
  const stretch = Math.max(scale, 1);
  const { weight, support } = FILTERS[filter];
  const reach = support * stretch;
  const width = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(outputs);
  const count = new Int32Array(outputs);
  const fractions = new Float64Array(outputs * width);
  for (let i = 0; i < outputs; i += 1) {
    const centre = start + (i + 0.5) * scale;
    first[i] = Math.max(0, Math.trunc(centre - reach + 0.5));
    count[i] = Math.min(width, Math.min(size, Math.trunc(centre + reach + 0.5)) - first[i]);
    let sum = 0;
    for (let j = 0; j < count[i]; j += 1) {
      const value = weight((j + first[i] - centre + 0.5) * (1 / stretch));
      fractions[i * width + j] = value;
      sum += value;
    }
    for (let j = 0; sum !== 0 && j < count[i]; j += 1) fractions[i * width + j] /= sum;
  }
  let bits = PILLOW_BITS;
  if (arithmetic === "torch") bits = torchBits(fractions.reduce((most, value) => Math.max(most, value), 0));
  const weights = Int32Array.from(fractions, (value) => Math.trunc(value * 2 ** bits + (value < 0 ? -0.5 : 0.5)));
  return { first, count, weights, width, bits };
}

const clamped = (value) => (value < 0 ? 0 : value > 255 ? 255 : value);

// One row of RGBA (or RGB) pixels -> one row of RGB pixels.
function horizontal(row, channels, table, into, at) {
  const { first, count, weights, width, bits } = table;
  const half = 1 << (bits - 1);
  for (let x = 0; x < first.length; x += 1) {
    let red = half;
    let green = half;
    let blue = half;
    let pixel = first[x] * channels;
    for (let j = 0, k = x * width; j < count[x]; j += 1, k += 1, pixel += channels) {
      red = (red + Math.imul(row[pixel], weights[k])) | 0;
      green = (green + Math.imul(row[pixel + 1], weights[k])) | 0;
      blue = (blue + Math.imul(row[pixel + 2], weights[k])) | 0;
    }
    into[at + 3 * x] = clamped(red >> bits);
    into[at + 3 * x + 1] = clamped(green >> bits);
    into[at + 3 * x + 2] = clamped(blue >> bits);
  }
}

function vertical(rows, stride, table) {
  const { first, count, weights, width, bits } = table;
  const half = 1 << (bits - 1);
  const result = new Uint8ClampedArray(first.length * stride);
  for (let y = 0; y < first.length; y += 1) {
    for (let x = 0; x < stride; x += 1) {
      let sum = half;
      for (let j = 0, at = first[y] * stride + x; j < count[y]; j += 1, at += stride) {
        sum = (sum + Math.imul(rows[at], weights[y * width + j])) | 0;
      }
      result[y * stride + x] = clamped(sum >> bits);
    }
  }
  return result;
}

const STRIP = 1 << 22; // pixels that are read of a source at once

// Whole rows of part of a source, as RGB: `make` is given each row, the buffer, and where the row begins in it.
function gathered(source, area, top, bottom, width, make) {
  const rows = new Uint8ClampedArray((bottom - top) * 3 * width);
  const strip = Math.max(1, Math.floor(STRIP / source.width));
  for (let start = top; start < bottom; start += strip) {
    const read = Math.min(strip, bottom - start);
    const pixels = source.read(area.top + start, read);
    for (let y = 0; y < read; y += 1) {
      const row = pixels.subarray((y * source.width + area.left) * source.channels);
      make(row, rows, (start + y - top) * 3 * width);
    }
  }
  return rows;
}

// Resample part of an image.
//   source: { width, height, channels, read(top, rows) -> pixels of whole rows }
//   out: { width, height }; filter: "bicubic" or "bilinear"
//   area: { left, top, width, height }, the pixels that may be used; box: { left, top, right, bottom } in them.
// Returns { width, height, channels: 3, data, read }.
// The order of the passes matters, because what is between them is rounded to 8 bits. Pillow 13 begins with the
// vertical one if the image becomes wider and lower; older versions and torch always begin with the horizontal one.
export function resize(source, out, { filter, arithmetic, area, box }) {
  const from = area || { left: 0, top: 0, width: source.width, height: source.height };
  const part = box || { left: 0, top: 0, right: from.width, bottom: from.height };
  const isSame = (size, start, stop, outputs) => size === outputs && start === 0 && stop === outputs;
  const keepsWidth = isSame(from.width, part.left, part.right, out.width);
  const keepsHeight = isSame(from.height, part.top, part.bottom, out.height);
  const across = coefficients(from.width, part.left, part.right, out.width, filter, arithmetic);
  const down = coefficients(from.height, part.top, part.bottom, out.height, filter, arithmetic);
  const copy = (row, rows, at) => copyRow(row, source.channels, from.width, rows, at);
  const squeeze = (row, rows, at) => horizontal(row, source.channels, across, rows, at);
  const last = out.height - 1;
  const top = keepsHeight ? 0 : down.first[0];
  const bottom = keepsHeight ? from.height : down.first[last] + down.count[last];
  down.first.forEach((value, y) => (down.first[y] = value - top));
  if (arithmetic === "pillow" && out.width > from.width && out.height < from.height) {
    const rows = vertical(gathered(source, from, top, bottom, from.width, copy), 3 * from.width, down);
    const upright = image(from.width, out.height, rows);
    const whole = { left: 0, top: 0, width: from.width, height: out.height };
    const second = (row, into, at) => horizontal(row, 3, across, into, at);
    return image(out.width, out.height, gathered(upright, whole, 0, out.height, out.width, second));
  }
  const rows = gathered(source, from, top, bottom, out.width, keepsWidth ? copy : squeeze);
  return image(out.width, out.height, keepsHeight ? rows : vertical(rows, 3 * out.width, down));
}

function copyRow(row, channels, width, into, at) {
  for (let x = 0; x < width; x += 1) {
    for (let c = 0; c < 3; c += 1) into[at + 3 * x + c] = row[channels * x + c];
  }
}

// RGB pixels as an image that is a source as well.
export function image(width, height, data) {
  const read = (top, rows) => data.subarray(top * width * 3, (top + rows) * width * 3);
  return { width, height, channels: 3, data, read };
}
