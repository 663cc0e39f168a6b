// The model, in a thread of its own: loads it, reads photos, predicts. What is shown is for page.js.

import * as ort from "./ort.js";
import { check, decode } from "./decode.js";
import { judged } from "./judge.js";
import { framePixels, normalised } from "./preprocess.js";

const MOST_THREADS = 4;
let model = null;
let session = null;
let checking = Promise.resolve();
let working = Promise.resolve();
let wanted = 0; // ids from which photos have not been removed

// A file as bytes, telling how many have come.
async function fetched({ file, bytes, version }, advance) {
  const response = await fetch(`${file}?${version}`).catch(() => null);
  if (!response || !response.ok) {
    throw new Error(`${file} cannot be loaded (${response ? `status ${response.status}` : "no connection"})`);
  }
  const content = new Uint8Array(bytes);
  const reader = response.body.getReader();
  let at = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (at + part.value.length > bytes) throw new Error(`${file} is larger than expected; export the page again`);
    content.set(part.value, at);
    at += part.value.length;
    advance(part.value.length);
  }
  if (at !== bytes) throw new Error(`${file} is incomplete: ${at} of ${bytes} bytes`);
  return content;
}

async function load() {
  const total = model.runtime.bytes + model.model.bytes;
  let loaded = 0;
  const advance = (count) => {
    loaded += count;
    postMessage({ type: "progress", loaded, total });
  };
  const runtime = await fetched(model.runtime, advance);
  const graph = await fetched(model.model, advance);
  postMessage({ type: "starting" });
  ort.env.wasm.wasmBinary = runtime.buffer;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  postMessage({ type: "ready", threads: ort.env.wasm.numThreads });
}

async function predict({ id, file }, head) {
  if (!session) throw new Error("the model is not loaded");
  const start = performance.now();
  const decoded = await decode(file, head, model.limits);
  let pixels;
  try {
    pixels = framePixels(decoded.source, model.preprocessing);
  } finally {
    decoded.close();
  }
  const [height, width] = model.preprocessing.image_size;
  const images = new ort.Tensor("float32", normalised(pixels, model.preprocessing), [1, 3, height, width]);
  const read = performance.now();
  const { logits } = await session.run({ images }, ["logits"]);
  const answer = { ...judged(logits.data, model), warning: decoded.warning };
  const seconds = { reading: (read - start) / 1000, model: (performance.now() - read) / 1000 };
  return { type: "answer", id, answer, seconds };
}

function refuse({ id }, error) {
  const reason = error instanceof RangeError ? "too large for this browser's memory" : error.message || String(error);
  postMessage({ type: "answer", id, error: reason });
}

// A photo's head is read at once, so that it can be shown while the model loads. Photos themselves are read one after
// the other: several large ones would not fit into memory.
function take(photo) {
  const head = checking.then(() => check(photo.file, model.limits));
  checking = head.then(
    () => postMessage({ type: "checked", id: photo.id }),
    (error) => refuse(photo, error),
  );
  working = working.then(async () => {
    const found = await head.catch(() => null); // refused already
    if (!found || photo.id < wanted) return;
    try {
      postMessage(await predict(photo, found));
    } catch (error) {
      refuse(photo, error);
    }
  });
}

function start(settings) {
  model = settings;
  working = load().catch((error) => postMessage({ type: "failed", reason: error.message || String(error) }));
}

self.addEventListener("message", ({ data }) => {
  if (data.type === "load") start(data.model);
  else if (data.type === "forget") wanted = data.before;
  else take(data);
});
