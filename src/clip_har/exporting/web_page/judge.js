// From logits to a prediction: calibration, prediction set, "unsure" and "none of these", by the rules of the run.
// The same steps as Judge of clip-har's predict.py, with the thresholds of model.json.

const LEAST = 1e-38; // probability, so that its logarithm is finite

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = powers.reduce((total, value) => total + value, 0);
  return powers.map((value) => value / sum);
}

// Class indices, most likely first; equal ones in the order of the classes.
const ranking = (values) => values.map((_, index) => index).sort((a, b) => values[b] - values[a] || a - b);

// logits: one per class; model: model.json. Returns a prediction as /v1/predict of the service has it.
export function judged(logits, { classes, calibration, top }) {
  const probabilities = softmax(logits);
  const ranked = ranking(probabilities);
  const best = ranked[0];
  const found = {
    label: classes[best],
    probability: probabilities[best],
    confidence: null,
    top: ranked.slice(0, top).map((index) => ({ label: classes[index], probability: probabilities[index] })),
    possible: null,
    unsure: false,
    unknown: false,
    reason: null,
    warning: null,
  };
  if (found.probability < calibration.known_from) {
    const below = `${found.probability.toFixed(2)} is below ${calibration.known_from.toFixed(2)}`;
    Object.assign(found, { label: null, unknown: true, reason: `probability ${below}: likely none of the classes` });
  }
  if (calibration.temperature === null) return found;
  const calibrated = softmax(probabilities.map((value) => Math.log(Math.max(value, LEAST)) / calibration.temperature));
  found.confidence = Math.max(...calibrated);
  if (calibration.sets_up_to !== null) {
    const likely = ranking(calibrated).filter((index) => 1 - calibrated[index] <= calibration.sets_up_to);
    found.possible = likely.map((index) => classes[index]);
  }
  if (found.confidence < calibration.answers_from && !found.unknown) {
    const reason = `confidence ${found.confidence.toFixed(2)} is below ${calibration.answers_from.toFixed(2)}`;
    Object.assign(found, { label: null, unsure: true, reason });
  }
  return found;
}
