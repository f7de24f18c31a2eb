// Writes what was found into the page: words and numbers, nothing is computed with here.

import { COLOURS } from "./heat.mjs";
import { isAnomaly } from "./scoring.mjs";

export const element = (id) => document.getElementById(id);
const write = (id, text) => (element(id).textContent = text);

/** Show six digits of a number; the row of JSON has them all. */
const short = (number) => String(Number(number.toPrecision(6)));
const tiny = (number) => (number === 0 ? "0" : number.toExponential(1));
const percent = (share) => `${Number((share * 100).toPrecision(2))} %`;
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export function showStatus(text) {
  write("status", text);
}

/** Show why something was refused, or nothing. */
export function showTrouble(text) {
  write("trouble", text);
  element("trouble").hidden = !text;
}

/** Offer the categories of a bundle where there is something to choose. */
export function showCategories(names, chosen) {
  element("categories").hidden = names.length < 2;
  const options = names.map((name) => new Option(name, name, false, name === chosen));
  const ask = new Option("choose one", "", true, chosen === undefined);
  element("category").replaceChildren(ask, ...options);
}

/** Show which bundle this is and what its goldens proved: results of `replay`, {error}. */
export function showProof({ name, version }, category, results, tolerances) {
  write("which", `Release "${name}", version ${version}, for the part "${category.name}".`);
  const judged = results.filter(({ agrees }) => agrees != null);
  const wrong = judged.filter(({ agrees }) => !agrees);
  const other = results.filter(({ agrees }) => agrees === null);
  const said = [];
  if (wrong.length)
    said.push(
      `Do not trust the scores of this page: ${wrong.length} of ` +
        `${plural(judged.length, "golden picture")} scored otherwise than at export.`,
    );
  else if (judged.length)
    said.push(
      "Proven on this very browser: it scores as the trained model did, on " +
        `${judged.length} of ${plural(results.length, "golden picture")}.`,
    );
  else said.push("Nothing is proven: no golden picture could be judged here.");
  for (const { image, scoreDiff } of other)
    said.push(
      `This browser decodes ${image} to other pixels than at export, so it says nothing ` +
        `about the model; its score is off by ${percent(scoreDiff)}.`,
    );
  write("verdict", said.join(" "));
  element("verdict").className = wrong.length || !judged.length ? "trouble" : "good";
  element("goldens").replaceChildren(...results.map(goldenRow));
  write(
    "tolerances",
    `Agreed where the difference of scores is at most ${tiny(tolerances.score_rel)} of ` +
      `the score, that of maps at most ${tiny(tolerances.map_of_range)} of the map's range, and ` +
      "the label is the same.",
  );
  element("proof").hidden = false;
}

function goldenRow({ image, expectedScore, score, scoreDiff, mapDiff, agrees, error }) {
  const verdicts = { true: "agrees", false: "disagrees", null: "other decoder" };
  const cells = error
    ? [image, "", "", "", "", error]
    : [
        image,
        short(expectedScore),
        short(score),
        tiny(scoreDiff),
        mapDiff === null ? "no map" : tiny(mapDiff),
        verdicts[agrees],
      ];
  const row = document.createElement("tr");
  for (const text of cells) row.insertCell().textContent = text;
  return row;
}

/** Offer the bundle's own pictures. */
export function showExamples(names, take) {
  const buttons = names.map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name.split("/").at(-1);
    button.addEventListener("click", () => take(name));
    return button;
  });
  element("examples").replaceChildren("Or take one of the bundle's own:", ...buttons);
  element("examples").hidden = !names.length;
}

/** Show the row of a scored picture beside its category's numbers. */
export function showRow(row, { scores, threshold: own }, note) {
  const { score, threshold, label, p_value: p } = row;
  write("name", row.input);
  write("label", label);
  element("label").className = `big ${label === "anomaly" ? "bad" : "good"}`;
  const relation = label === "anomaly" ? "at or above" : "below";
  write("label-why", `${relation} the threshold ${short(threshold)}`);
  write("score", short(score));
  write("p-value", p === null ? "none" : String(Number(p.toPrecision(3))));
  const as = scores.filter((normal) => isAnomaly(normal, score)).length;
  const good = plural(scores.length, "held-out good picture");
  write("p-why", scores.length ? `${as} of ${good} scored as high` : "no scores kept");
  const alarms = scores.filter((normal) => isAnomaly(normal, threshold)).length;
  const isOwn = row.threshold_source === "bundle";
  const whose = isOwn ? "the bundle's own threshold" : "this threshold";
  const back = isOwn ? "" : ` The bundle's own is ${short(own)}; it stays as it is.`;
  write("false-alarms", `At ${whose}, ${alarms} of ${good} would be called anomalies.${back}`);
  write("note", note);
  element("note").hidden = !note;
  write("row", JSON.stringify(row, null, 1));
  element("result").hidden = false;
}

/** Set the reach of the threshold's slider: all that could matter for this picture. */
export function showSlider(threshold, { scores, threshold: own }, score) {
  const slider = element("slider");
  const values = [scores[0] ?? own, own, threshold, score];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low) / 10 || Math.abs(own) / 10 || 1;
  slider.min = low - margin;
  slider.max = high + margin;
  slider.value = threshold;
  element("threshold").value = threshold;
}

/** Show what the colours of the drawing mean. */
export function showHeat(range, pixelThreshold) {
  element("heat").hidden = !range;
  if (!range) return;
  write("low", short(range.low));
  write("high", short(range.high));
  element("colours").style.background = COLOURS;
  const whose = pixelThreshold === undefined ? "the threshold" : "the pixel threshold";
  write(
    "heat-words",
    `Framed in cyan: map values from ${whose} on, ${short(range.threshold)}. ` +
      "The frame stays when another threshold is tried for the score.",
  );
}

/** Tell those who do not see the drawing what is on it. */
export function describeDrawing(name, { height, width }, label) {
  const text = `${name}, ${height} x ${width} pixels (height x width): ${label}`;
  element("canvas").setAttribute("aria-label", text);
}
