// The page: a bundle, its proof, then pictures. What a person does is put in a queue, so
// that a picture that is dropped while another one is scored waits for its turn.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { BundleError, field, readConfig, readListed } from "./bundle.mjs";
import { selectCategory, sha256 } from "./bundle.mjs";
import { chosenFolder, droppedFolder, folderAt } from "./folders.mjs";
import { drawPicture, heatRange } from "./heat.mjs";
import { ImageError } from "./picture_header.mjs";
import { decode } from "./pictures.mjs";
import { isAnomaly, ModelError, openChain, pValue, replay } from "./scoring.mjs";
import * as view from "./view.mjs";

// More threads need a server that isolates the page (COOP and COEP headers), which
// plain ones such as python -m http.server do not.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url) };

const ASK = "Choose a bundle folder to begin.";
let opened; // {folder, config, category, chain, results} of the bundle that is shown
let shown; // {name, picture, score, map, mapSize, pixels} of the picture that is shown
let threshold;

let queue = Promise.resolve();
/** Do a task after those before it; say what was refused, and go on. */
function enqueue(task) {
  queue = queue.then(async () => {
    view.showTrouble("");
    document.body.setAttribute("aria-busy", "true");
    try {
      await task();
    } catch (cause) {
      const kinds = [BundleError, ImageError, ModelError];
      const ours = kinds.some((kind) => cause instanceof kind);
      view.showTrouble(ours ? `Refused: ${cause.message}` : `This page failed: ${cause}`);
      view.showStatus(opened ? "The bundle is ready." : ASK);
      if (!ours) throw cause;
    } finally {
      document.body.setAttribute("aria-busy", "false");
    }
  });
  queue = queue.catch((cause) => console.error(cause)); // for whoever mends this page
}

/** Say what is going on, and let the browser paint it before it is busy. */
async function say(text) {
  view.showStatus(text);
  // Frames stop where the page is not seen, so time stands in.
  await new Promise((resolve) => setTimeout(resolve, 20));
}

async function openBundle(folder, wanted) {
  await closeBundle();
  await say(`Reading ${folder.name} ...`);
  const config = await readConfig(folder);
  const names = Object.keys(field(config, ["categories"], "object")).sort();
  view.showCategories(names, wanted ?? (names.length === 1 ? names[0] : undefined));
  view.element("category").onchange = ({ target }) =>
    target.value && enqueue(() => openBundle(folder, target.value));
  if (wanted === undefined && names.length > 1)
    return view.showStatus("This bundle judges several parts: choose one.");

  const category = selectCategory(config, wanted);
  await say("Loading the model ...");
  const chain = await openChain(ort, folder, config, category);
  const next = { folder, config, category, chain, decode, results: [] };
  try {
    await prove(next);
  } catch (cause) {
    await chain.release();
    throw cause;
  }
  opened = next;
  threshold = category.threshold;
  view.showStatus(`The bundle is ready for pictures of ${category.name}.`);
  const take = (image) => enqueue(() => scoreGolden(image));
  view.showExamples(opened.results.map(({ image }) => image), take);
  view.element("picture").hidden = false;
}

async function closeBundle() {
  const before = opened;
  opened = shown = undefined;
  for (const part of ["categories", "proof", "picture", "result"])
    view.element(part).hidden = true;
  await before?.chain.release();
}

/** Replay the category's goldens, as `pyimgano-runtime check` does. */
async function prove(next) {
  const { config, category, results } = next;
  const all = field(config, ["parity", "goldens"], "array");
  const goldens = all.filter((golden) => golden.category === category.name);
  for (const [done, golden] of goldens.entries()) {
    await say(`Proving the model: golden picture ${done + 1} of ${goldens.length} ...`);
    try {
      results.push({ image: golden.image, ...(await replay(next, golden)) });
    } catch (cause) {
      if (!(cause instanceof ImageError)) throw cause;
      results.push({ image: golden.image, error: cause.message });
    }
  }
  const tolerances = field(config, ["parity", "tolerances"], "object");
  view.showProof(field(config, ["bundle"], "object"), category, results, tolerances);
}

const scoreGolden = async (image) =>
  score(image, await readListed(opened.folder, opened.config, image, "golden_image"));

async function score(name, bytes) {
  if (!opened) throw new BundleError(`${name}: choose a bundle first`);
  await say(`Scoring ${name} ...`);
  const { config, category, chain } = opened;
  view.element("result").hidden = true;
  const start = performance.now();
  const picture = await decode(bytes, config.input, name);
  const found = await chain.score(picture);
  if (!Number.isFinite(found.score) || !(found.map ?? []).every(Number.isFinite))
    throw new ImageError(`${name}: the model gives no finite score; take another picture`);
  const ms = Math.round(performance.now() - start);
  shown = { name, picture, ...found, pixels: await sha256(picture.rgb) };
  view.showSlider(threshold, category, found.score);
  view.showHeat(found.map && heatRange(category), category.pixelThreshold);
  view.showStatus(`Scored ${name} in ${ms} ms.`);
  judge();
  draw();
  // For programs that drive this page; its own test is one.
  const detail = { row: rowOf(), map: found.map, mapSize: found.mapSize };
  document.dispatchEvent(new CustomEvent("scored", { detail }));
}

function rowOf() {
  const { category } = opened;
  return {
    input: shown.name,
    category: category.name,
    score: shown.score,
    p_value: pValue(shown.score, category),
    threshold,
    threshold_source: threshold === category.threshold ? "bundle" : "page",
    label: isAnomaly(shown.score, threshold) ? "anomaly" : "normal",
    pixels_sha256: shown.pixels, // equal where another decoder gives the same picture
  };
}

/** Show the verdict; the score stays as it is when the threshold moves. */
function judge() {
  const row = rowOf();
  view.showRow(row, opened.category, noteOn(shown.picture));
  view.describeDrawing(shown.name, shown.picture, row.label);
}

/** Say how far a JPEG is to be trusted; other pictures decode alike everywhere. */
function noteOn({ format }) {
  if (format !== "JPEG") return "";
  const jpeg = opened.results.find(({ image }) => /\.jpe?g$/i.test(image));
  if (jpeg?.agrees != null) return "";
  return jpeg
    ? "This browser decodes JPEG a little otherwise than the training did, so this score " +
        "may differ a little from the runtime's. A PNG has no such difference."
    : "The bundle has no JPEG golden: whether this browser decodes JPEG as the training " +
        "did is not known. A PNG has no such doubt.";
}

function draw() {
  const { picture, map, mapSize } = shown;
  const { category } = opened;
  const heat = map &&
    view.element("heat-on").checked && {
      ...{ map, mapSize, mapMode: category.mapMode },
      range: heatRange(category),
    };
  drawPicture(view.element("canvas"), picture, heat);
}

function setThreshold(text) {
  const value = Number(text);
  if (!shown || text.trim() === "" || !Number.isFinite(value)) return;
  threshold = value;
  judge();
}

const scoreFile = async (file) =>
  score(file.name, new Uint8Array(await file.arrayBuffer()));

function listen() {
  const on = (id, kind, act) => view.element(id).addEventListener(kind, act);
  on("choose-bundle", "change", ({ target }) => {
    const files = [...target.files];
    target.value = ""; // so that the same one can be chosen again
    if (files.length) enqueue(() => openBundle(chosenFolder(files)));
  });
  on("choose-picture", "change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) enqueue(() => scoreFile(file));
  });
  on("slider", "input", ({ target }) => {
    setThreshold(target.value);
    view.element("threshold").value = target.value;
  });
  on("threshold", "input", ({ target }) => {
    setThreshold(target.value);
    view.element("slider").value = threshold;
  });
  on("reset", "click", () => {
    threshold = opened.category.threshold;
    view.showSlider(threshold, opened.category, shown.score);
    judge();
  });
  on("heat-on", "change", draw);

  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // or the browser opens what is dropped instead of the page
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [item] = event.dataTransfer.items;
    const entry = item?.webkitGetAsEntry(); // gone once this function has returned
    if (entry?.isDirectory) return enqueue(() => openBundle(droppedFolder(entry)));
    const [file] = event.dataTransfer.files;
    if (file) enqueue(() => scoreFile(file));
  });
}

listen();
view.showStatus(ASK);
const asked = new URLSearchParams(location.search);
const [place, part] = [asked.get("bundle"), asked.get("category") ?? undefined];
enqueue(async () => place && openBundle(folderAt(place), part));
