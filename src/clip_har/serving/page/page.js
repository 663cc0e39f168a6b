"use strict";

const $ = (id) => document.getElementById(id);
const state = { photo: null, models: [], key: "", asking: null, shown: null, photoUrl: "", mapUrl: "" };
const PAUSE = 400; // milliseconds after the last key before own actions are asked for

const percent = (value) => `${(100 * value).toFixed(value >= 0.0995 || value === 0 ? 0 : 1)} %`;
const words = (label) => label.replace(/_+/g, " ").trim() || label;
const model = () => state.models.find((item) => item.name === $("model").value) || state.models[0];
const actions = () => [...new Set($("classes").value.split("\n").map((line) => line.trim()).filter(Boolean))];

function show(id, text) {
  $(id).textContent = text;
  $(id).hidden = !text;
}

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

function take(file) {
  if (!file) return;
  state.photo = file;
  URL.revokeObjectURL(state.photoUrl);
  state.photoUrl = URL.createObjectURL(file);
  showPicture(state.photoUrl, "Your photo");
  ask();
}

function showPicture(url, text) {
  $("picture").alt = text;
  $("picture").src = url;
  $("picture").hidden = false;
  $("empty").hidden = true;
  $("frame").classList.add("filled");
}

function noPicture() {
  $("picture").hidden = true;
  $("empty").textContent = "Your browser cannot show this file.";
  $("empty").hidden = false;
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
  $("answer").hidden = true;
  $("waiting").hidden = true;
  $("map").disabled = true;
  show("problem", text);
}

function showAnswer(answer) {
  const found = answer.predictions[0];
  state.shown = found;
  const best = found.top[0];
  const verdict = found.unknown ? "None of these" : found.unsure ? "Unsure" : words(found.label);
  const certainty = found.confidence === null ? percent(best.probability) : `${percent(found.confidence)} confidence`;
  $("label").textContent = verdict;
  $("percent").textContent = found.label ? certainty : `perhaps ${words(best.label)}, ${certainty}`;
  show("reason", found.reason ? `No label, because the ${found.reason}.` : "");
  show("set", setText(found, answer));
  show("warning", found.warning ? `The file ${found.warning}.` : "");
  $("waiting").hidden = true;
  $("answer").hidden = false;
  $("map").disabled = false;
  const marked = Boolean(found.possible) && found.possible.length > 0 && found.possible.length < answer.classes.length;
  $("set").classList.toggle("marked", marked);
  showBars(found, marked);
  const spoken = `${verdict}, ${$("percent").textContent}. ${$("set").textContent}`;
  $("status").textContent = spoken;
}

function setText(found, answer) {
  if (!found.possible) return "";
  const coverage = percent(answer.coverage);
  if (!found.possible.length) return `Prediction set (${coverage} coverage): empty. No action is likely enough.`;
  if (found.possible.length === answer.classes.length) return `Prediction set (${coverage} coverage): all actions.`;
  return `Prediction set (${coverage} coverage): ${found.possible.map(words).join(", ")}.`;
}

function showBars(found, marked) {
  const rows = new Map([...$("bars").children].map((row) => [row.dataset.label, row]));
  const wanted = found.top.map((item, rank) => {
    const row = rows.get(item.label) || bar(item.label);
    row.querySelector(".value").textContent = percent(item.probability);
    row.querySelector(".fill").style.width = `${100 * item.probability}%`;
    row.classList.toggle("first", rank === 0);
    row.classList.toggle("in-set", marked && found.possible.includes(item.label));
    return row;
  });
  $("bars").replaceChildren(...wanted);
}

function bar(label) {
  const row = document.createElement("li");
  row.className = "bar";
  row.dataset.label = label;
  for (const part of ["label", "value", "track"]) {
    const element = document.createElement("span");
    element.className = part;
    row.append(element);
  }
  row.children[0].textContent = words(label);
  const fill = document.createElement("span");
  fill.className = "fill";
  row.children[2].append(fill);
  return row;
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

for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
}
$("picture").addEventListener("error", noPicture);
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
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
  if (file) {
    event.preventDefault();
    take(file);
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("frame").classList.add("over");
});
document.addEventListener("dragleave", () => $("frame").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("frame").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
loadModels();
