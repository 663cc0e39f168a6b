// The page of `clip-har export --format web`: photos in, predictions out. The model runs in worker.js.

import { $, percent, show, showPrediction, showProblem, verdictOf } from "./answer.js";
import { listen, noPicture, showPicture } from "./photos.js";

const state = { model: null, photos: new Map(), next: 0, shown: null, ready: false, failed: "" };
const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
const EMPTY = $("empty").textContent;
const worker = new Worker("worker.js", { type: "module" });

const HEARD = {
  progress: ({ loaded, total }) => {
    $("loading-bar").max = total;
    $("loading-bar").value = loaded;
    $("loading-text").textContent = `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB`;
  },
  starting: () => {
    $("loading-bar").removeAttribute("value");
    $("loading-text").textContent = "Starting the model …";
  },
  ready: ({ threads }) => {
    state.ready = true;
    $("loading").hidden = true;
    document.documentElement.dataset.threads = threads;
    $("status").textContent = "The model is loaded.";
    if (!state.shown) show("waiting", "No photo yet.");
    else if (!state.shown.done) show("waiting", "Predicting …");
  },
  failed: ({ reason }) => fail(`The model could not be loaded: ${reason}.`),
  checked: ({ id }) => {
    const photo = state.photos.get(id);
    if (!photo || state.failed) return; // it was removed
    photo.readable = true;
    thumbnail(photo);
    if (photo === state.shown) showPhoto();
  },
  answer: ({ id, answer, error, seconds }) => {
    const photo = state.photos.get(id);
    if (!photo || state.failed) return;
    Object.assign(photo, { done: true, answer, seconds, error: error && `The photo cannot be read: ${error}.` });
    thumbnail(photo);
    told();
    if (photo === state.shown) showPhoto();
  },
};

worker.addEventListener("message", ({ data }) => HEARD[data.type](data));
worker.addEventListener("error", (event) => {
  event.preventDefault();
  fail(`The model could not be loaded: ${event.message || "worker.js cannot be run"}.`);
});

function fail(text) {
  state.failed = text;
  $("loading").hidden = true;
  showProblem(text);
}

function take(files) {
  if (state.failed) return;
  const first = state.next;
  for (const file of files) {
    const photo = { id: state.next, file, url: URL.createObjectURL(file), done: false, readable: false };
    state.next += 1;
    state.photos.set(photo.id, photo);
    $("photos").append(entry(photo));
    worker.postMessage({ type: "predict", id: photo.id, file });
  }
  $("several").hidden = state.photos.size < 2;
  select(state.photos.get(first));
}

function entry(photo) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "thumbnail";
  const picture = document.createElement("img");
  picture.alt = "";
  picture.hidden = true;
  picture.addEventListener("error", () => (picture.hidden = true));
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = photo.file.name || `Photo ${photo.id + 1}`;
  const verdict = document.createElement("span");
  verdict.className = "found";
  verdict.textContent = "…";
  button.append(picture, name, verdict);
  button.addEventListener("click", () => select(photo));
  item.append(button);
  photo.button = button;
  return item;
}

// What the list says of a photo. A picture only once its size is known: the browser decodes it again to show it.
function thumbnail(photo) {
  const [picture, , verdict] = photo.button.children;
  if (photo.readable && !picture.src) {
    picture.src = photo.url;
    picture.hidden = false;
  }
  photo.button.classList.toggle("done", photo.done);
  if (photo.error) verdict.textContent = "Cannot be read";
  else if (photo.done) verdict.textContent = summary(photo.answer);
}

function summary(found) {
  const value = found.confidence === null ? found.probability : found.confidence;
  return `${verdictOf(found)}, ${percent(value)}`;
}

function told() {
  const all = [...state.photos.values()];
  const done = all.filter((photo) => photo.done).length;
  $("several-heading").textContent = `${done} of ${all.length} photos done`;
  if (all.length > 1) $("several-status").textContent = $("several-heading").textContent;
}

function select(photo) {
  state.shown = photo;
  for (const other of state.photos.values()) other.button.setAttribute("aria-pressed", String(other === photo));
  told();
  showPhoto();
}

function showPhoto() {
  const { shown } = state;
  if (shown.readable) showPicture(shown.url, shown.file.name ? `Your photo ${shown.file.name}` : "Your photo");
  else if (shown.done) noPicture("This file is not shown.");
  else noPicture("…");
  $("result").toggleAttribute("aria-busy", !shown.done);
  show("problem", shown.error || "");
  if (shown.error) return showProblem(shown.error);
  if (!shown.done) {
    $("answer").hidden = true;
    return show("waiting", state.ready ? "Predicting …" : "Waiting for the model …");
  }
  return showPrediction(shown.answer, { coverage: state.model.calibration.coverage, classes: state.model.classes });
}

function clear() {
  worker.postMessage({ type: "forget", before: state.next });
  for (const photo of state.photos.values()) URL.revokeObjectURL(photo.url);
  state.photos.clear();
  state.shown = null;
  $("photos").replaceChildren();
  $("several").hidden = true;
  $("picture").hidden = true;
  $("picture").removeAttribute("src");
  $("empty").textContent = EMPTY;
  $("empty").hidden = false;
  $("frame").classList.remove("filled");
  $("answer").hidden = true;
  $("result").removeAttribute("aria-busy");
  show("problem", "");
  show("waiting", "No photo yet.");
  $("file").focus();
}

async function start() {
  const response = await fetch("model.json", { cache: "no-cache" }).catch(() => null);
  if (!response || !response.ok) {
    return fail("model.json cannot be loaded: copy the whole folder of the export to the server.");
  }
  state.model = await response.json();
  $("about").textContent = state.model.about;
  $("loading").hidden = false;
  worker.postMessage({ type: "load", model: state.model });
  listen(take);
  $("clear").addEventListener("click", clear);
  document.documentElement.dataset.started = "yes";
  return undefined;
}

$("cannot-start").hidden = true;
start();
