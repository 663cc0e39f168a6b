// The prediction of one photo as elements of a page: verdict, reason, prediction set and bars.
// Where predictions come from is for the pages: the service's, and that of an export for the web.

export const $ = (id) => document.getElementById(id);
export const percent = (value) => `${(100 * value).toFixed(value >= 0.0995 || value === 0 ? 0 : 1)} %`;
export const words = (label) => label.replace(/_+/g, " ").trim() || label;

export function show(id, text) {
  $(id).textContent = text;
  $(id).hidden = !text;
}

export function showProblem(text) {
  $("answer").hidden = true;
  $("waiting").hidden = true;
  show("problem", text);
}

export const verdictOf = (found) => (found.unknown ? "None of these" : found.unsure ? "Unsure" : words(found.label));

// found: a prediction as /v1/predict has it; answer: { coverage, classes } of all predictions.
export function showPrediction(found, answer) {
  const best = found.top[0];
  const verdict = verdictOf(found);
  const certainty = found.confidence === null ? percent(best.probability) : `${percent(found.confidence)} confidence`;
  $("label").textContent = verdict;
  $("percent").textContent = found.label ? certainty : `perhaps ${words(best.label)}, ${certainty}`;
  show("reason", found.reason ? `No label, because the ${found.reason}.` : "");
  show("set", setText(found, answer));
  show("warning", found.warning ? `The file ${found.warning}.` : "");
  $("waiting").hidden = true;
  $("answer").hidden = false;
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
