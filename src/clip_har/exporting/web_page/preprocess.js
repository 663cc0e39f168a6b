// From an upright image to the model's input: size, crop and normalisation as clip-har's preprocessing.py has them.
// How pixels are resampled is in resize.js.

import { image, resize } from "./resize.js";

const EXTREME_ASPECT = 4;

// Python's round: halves go to the even neighbour.
function rounded(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

// The filter that is used: open_clip forgets what was asked for if the frame is not square.
function filterOf({ image_size: [height, width], interpolation, resize_mode: mode }) {
  const heeded = mode !== "shortest" || height === width;
  return interpolation === "bilinear" && heeded ? "bilinear" : "bicubic";
}

// Width and height before the crop or the padding.
export function resizedSize(size, { image_size: [height, width], resize_mode: mode }) {
  if (mode === "squash") return { width, height };
  if (mode === "shortest" && height === width) {
    if (size.width <= size.height) return { width, height: Math.trunc((width * size.height) / size.width) };
    return { width: Math.trunc((height * size.width) / size.height), height };
  }
  const ratios = [size.height / height, size.width / width];
  const ratio = mode === "longest" ? Math.max(...ratios) : Math.min(...ratios);
  return { width: Math.max(1, rounded(size.width / ratio)), height: Math.max(1, rounded(size.height / ratio)) };
}

// What a centre crop keeps of one side, in pixels of the image before it was resized.
function keptSpan(side, resized, kept) {
  const scale = side / resized;
  const cropStart = rounded((resized - kept) / 2);
  const start = cropStart * scale;
  const stop = Math.min((cropStart + kept) * scale, side);
  const margin = 3 * Math.max(scale, 1);
  const first = Math.max(0, Math.floor(start - margin));
  const last = Math.min(side, Math.ceil(stop + margin));
  return { first, size: last - first, start: Math.fround(start - first), stop: Math.fround(stop - first) };
}

// An image of extreme shape, resized to the frame without computing what the crop would remove; any other as it is.
function resizeExtreme(source, settings) {
  const [height, width] = settings.image_size;
  const aspect = source.width / width / (source.height / height);
  const mode = settings.resize_mode;
  if (mode === "squash" || (aspect >= 1 / EXTREME_ASPECT && aspect <= EXTREME_ASPECT)) return source;
  const how = { filter: filterOf(settings), arithmetic: "pillow" };
  const resized = resizedSize(source, settings);
  if (mode === "longest") return resize(source, resized, how);
  const columns = keptSpan(source.width, resized.width, width);
  const rows = keptSpan(source.height, resized.height, height);
  const area = { left: columns.first, top: rows.first, width: columns.size, height: rows.size };
  const box = { left: columns.start, top: rows.start, right: columns.stop, bottom: rows.stop };
  return resize(source, { width, height }, { ...how, area, box });
}

// The centre of what is larger than the frame; padding around what is smaller.
function centre(found, [height, width], fill) {
  if (found.width === width && found.height === height) return found.data;
  const top = Math.max(0, rounded((found.height - height) / 2));
  const left = Math.max(0, rounded((found.width - width) / 2));
  const rows = Math.min(height, found.height);
  const columns = Math.min(width, found.width);
  const above = Math.floor((height - rows) / 2);
  const before = Math.floor((width - columns) / 2);
  const framed = new Uint8ClampedArray(3 * height * width).fill(fill);
  for (let y = 0; y < rows; y += 1) {
    const start = 3 * ((top + y) * found.width + left);
    framed.set(found.data.subarray(start, start + 3 * columns), 3 * ((above + y) * width + before));
  }
  return framed;
}

// Pixels of the model's frame, RGB, row by row.
//   source: as `resize` reads it; settings: "preprocessing" of model.json.
export function framePixels(source, settings) {
  let found = resizeExtreme(source, settings);
  const resized = resizedSize(found, settings);
  const filter = filterOf(settings);
  const enlarges = resized.width > found.width || resized.height > found.height;
  found = resize(found, resized, { filter, arithmetic: enlarges ? "pillow" : "torch" });
  return centre(found, settings.image_size, settings.fill_color);
}

// Pixels -> float32 values, channel by channel: (pixel / 255 - mean) / std, each step rounded to float32.
export function normalised(pixels, { mean, std }) {
  const area = pixels.length / 3;
  const result = new Float32Array(pixels.length);
  for (let c = 0; c < 3; c += 1) {
    const values = Float32Array.from({ length: 256 }, (_, level) => {
      const shifted = Math.fround(Math.fround(level / 255) - Math.fround(mean[c]));
      return Math.fround(shifted / Math.fround(std[c]));
    });
    for (let i = 0; i < area; i += 1) result[c * area + i] = values[pixels[3 * i + c]];
  }
  return result;
}

export { image };
