import { $, show, showPrediction, showProblem as showProblemAlone, words } from "./answer.js";
import { listen, showPicture } from "./photos.js";

const state = { photo: null, models: [], key: "", asking: null, shown: null, photoUrl: "", mapUrl: "" };
const PAUSE = 400; // milliseconds after the last key before own actions are asked for

const model = () => state.models.find((item) => item.name === $("model").value) || state.models[0];
const actions = () => [...new Set($("classes").value.split("\n").map((line) => line.trim()).filter(Boolean))];

async function send(path, options = {}) {
  const headers = state.key ? { Authorization: `Bearer ${state.key}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service cannot be reached.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) askForKey();
  throw new Error(problem.detail || `The service answered with status ${response.status}.`);
}

function askForKey() {
  $("key-form").hidden = false;
  $("key").focus();
}

async function loadModels() {
  try {
    const listed = await (await send("v1/models")).json();
    state.models = listed.models;
    $("model").replaceChildren(...listed.models.map((item) => new Option(item.name, item.name)));
    $("model-choice").hidden = listed.models.length < 2;
    $("key-form").hidden = true;
    show("problem", "");
    modelChanged();
  } catch (error) {
    show("problem", error.message);
  }
}

function modelChanged() {
  const accepts = model().accepts_classes;
  $("classes").disabled = !accepts;
  $("own-note").textContent = accepts
    ? "The model then chooses among these. Their probabilities are not calibrated."
    : `This model (${model().method}) predicts only the actions that it was trained on.`;
  ask();
}

function take([file]) {
  state.photo = file;
  URL.revokeObjectURL(state.photoUrl);
  state.photoUrl = URL.createObjectURL(file);
  showPicture(state.photoUrl, "Your photo");
  ask();
}

function form(label) {
  const content = new FormData();
  content.append("file", state.photo, state.photo.name || "photo");
  content.append("model", model().name);
  if (own()) content.append("classes", actions().join("\n"));
  if (label) content.append("label", label);
  return content;
}

const own = () => model().accepts_classes && actions().length >= 2;

async function ask() {
  hideMap();
  if (!state.photo || !state.models.length) return;
  if (state.asking) state.asking.abort();
  const asking = (state.asking = new AbortController());
  show("problem", "");
  $("result").setAttribute("aria-busy", "true");
  if ($("answer").hidden) show("waiting", "Predicting …");
  try {
    const path = own() ? "v1/classes" : "v1/predict?top=8";
    const response = await send(path, { method: "POST", body: form(), signal: asking.signal });
    showAnswer(await response.json());
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error.message);
  } finally {
    if (state.asking === asking) {
      state.asking = null;
      $("result").removeAttribute("aria-busy");
    }
  }
}

function showProblem(text) {
  state.shown = null;
  $("map").disabled = true;
  showProblemAlone(text);
}

function showAnswer(answer) {
  state.shown = answer.predictions[0];
  showPrediction(state.shown, answer);
  $("map").disabled = false;
}

function hideMap() {
  $("map").setAttribute("aria-pressed", "false");
  $("map-note").hidden = true;
  if (state.mapUrl) {
    URL.revokeObjectURL(state.mapUrl);
    state.mapUrl = "";
    showPicture(state.photoUrl, "Your photo");
  }
}

async function toggleMap() {
  if ($("map").getAttribute("aria-pressed") === "true") return hideMap();
  const photo = state.photo;
  const label = state.shown.top[0].label;
  $("map").disabled = true;
  try {
    const response = await send("v1/explain", { method: "POST", body: form(label) });
    const url = URL.createObjectURL(await response.blob());
    if (photo !== state.photo || !state.shown || state.shown.top[0].label !== label) return URL.revokeObjectURL(url);
    state.mapUrl = url;
    showPicture(url, `Your photo with the saliency map of ${words(label)}`);
    $("map-label").textContent = words(label);
    $("map-note").hidden = false;
    $("map").setAttribute("aria-pressed", "true");
  } catch (error) {
    show("problem", error.message);
  } finally {
    $("map").disabled = !state.shown;
  }
}

let pause = 0;

function actionsChanged() {
  $("reset").disabled = !$("classes").value;
  clearTimeout(pause);
  pause = setTimeout(ask, PAUSE);
}

listen(take);
$("model").addEventListener("change", modelChanged);
$("map").addEventListener("click", toggleMap);
$("classes").addEventListener("input", actionsChanged);
$("reset").addEventListener("click", () => {
  $("classes").value = "";
  $("reset").disabled = true;
  ask();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = $("key").value.trim();
  loadModels();
});
loadModels();
