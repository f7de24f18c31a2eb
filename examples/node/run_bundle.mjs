// Replays the PNG goldens of a PyImgAno bundle, then scores PNG pictures.
//
//     node run_bundle.mjs BUNDLE [--category C] [IMAGE.png ...]
//
// stdout: one JSON row a picture; stderr: sentences. Exit code: the first true of
// 3 bundle refused, 5 a golden disagrees or none could be judged, 4 an IMAGE could not
// be scored, 0; 2 usage.

import { readFileSync, realpathSync } from "node:fs";
import { parseArgs } from "node:util";
import { PNG } from "pngjs";
import * as bundle from "./bundle.mjs";
import { BundleError, field, refuse } from "./bundle.mjs";

// Before it is loaded: onnxruntime-node may send telemetry otherwise.
process.env.ORT_DISABLE_TELEMETRY ??= "1";
const { default: ort } = await import("onnxruntime-node");

const TINY = 2 ** -126; // the smallest normal float32

class ImageError extends Error {}
class ModelError extends Error {}

/** Give a PNG file's pixels, uint8 RGB; size and kind are refused before decoding. */
function decodePng(bytes, rules, where) {
  const must = (accepted, found) => {
    if (!accepted) throw new ImageError(`${where}: ${found}`);
  };
  const signature = bytes.toString("latin1", 0, 8);
  must(bytes.length > 32 && signature === "\x89PNG\r\n\x1a\n", "is no PNG file");
  const [width, height] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  const size = `${height} x ${width} pixels (height x width)`;
  const [low, high] = [rules.min_side, rules.max_pixels];
  must(Math.min(width, height) >= low, `${size}, expected sides from ${low}`);
  must(width * height <= high, `${size}, expected at most ${high} in all`);
  const [wantedHeight, wantedWidth] = rules.expected_size ?? [height, width];
  const fits = height === wantedHeight && width === wantedWidth;
  must(fits, `${size}, expected ${wantedHeight} x ${wantedWidth}`);

  const [depth, colour] = [bytes[24], bytes[25]];
  must(depth <= 8, `${depth} bits per channel, expected 8`);
  for (let at = 8; at + 12 <= bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    const chunk = bytes.toString("latin1", at + 4, at + 8);
    // pngjs blackens the colour that tRNS marks; alpha must be dropped, not applied.
    const plain = !["eXIf", "acTL", "tRNS"].includes(chunk);
    const harmless = chunk === "tRNS" && colour === 3; // a palette keeps its colours
    must(plain || harmless, `has ${chunk}, not handled here; save the picture plain`);
  }
  let rgba;
  try {
    rgba = PNG.sync.read(bytes).data;
  } catch (cause) {
    must(false, `is damaged (${cause.message})`);
  }
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3)
    for (let channel = 0; channel < 3; channel++) rgb[to + channel] = rgba[from + channel];
  return { rgb, height, width };
}

/** Give a model's session, and the names of its tensors by kind. */
async function openModel(root, config, name) {
  const at = ["models", name];
  const inputs = field(config, [...at, "inputs"], "array");
  const outputs = field(config, [...at, "outputs"], "array");
  const nameOf = (tensors, kind, dtype) => bundle.tensorOf(tensors, kind, dtype)?.name;
  const model = {
    file: field(config, [...at, "file"], "string"),
    image: nameOf(inputs, "image", "uint8"),
    takes: bundle.featuresOf(inputs),
    gives: bundle.featuresOf(outputs),
    score: nameOf(outputs, "score", "float32"),
    map: nameOf(outputs, "anomaly_map", "float32"),
  };
  const { file, image, takes, gives, score, map } = model;
  const bytes = bundle.readListed(root, config, file, "model");
  // Bytes that begin like onnxruntime's own format are not to be taken as such, and
  // external data is not to be looked for in the current directory.
  const strict = {
    load_model_format: "ONNX",
    model_external_initializers_file_folder_path: "/dev/null/none",
  };
  try {
    model.session = await ort.InferenceSession.create(bytes, {
      logSeverityLevel: 4,
      extra: { session: strict },
    });
  } catch (cause) {
    refuse(`${file}: onnxruntime refuses the model (${cause.message})`);
  }
  const known = [...model.session.inputNames, ...model.session.outputNames];
  const told = [image, ...takes, ...gives, score, map].filter((tensor) => tensor);
  const missing = told.filter((tensor) => !known.includes(tensor));
  if (missing.length) refuse(`${file}: has no tensor ${missing}; export the bundle again`);
  return model;
}

/** Give a function from pixels to {score, map, mapSize}: the models in their order. */
async function openChain(root, config, { name, graph }) {
  const models = [];
  const given = new Set();
  for (const [step, part] of graph.entries()) {
    const model = await openModel(root, config, part);
    const fits =
      (step === 0) === (model.image !== undefined) &&
      (step === graph.length - 1) === (model.score !== undefined) &&
      model.takes.every((features) => given.has(features));
    if (!fits)
      refuse(
        `categories.${name}.graph: "${part}" does not fit at place ${step}: the first ` +
          "takes the image, the last gives the score, and features come from models " +
          "before; export the bundle again",
      );
    for (const features of model.gives) given.add(features);
    models.push(model);
  }
  const last = models.at(-1);

  return async ({ rgb, height, width }) => {
    let tensors = {};
    const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
    for (const { session, file, ...names } of models) {
      const feeds = names.image ? { [names.image]: image } : {};
      for (const features of names.takes) feeds[features] = tensors[features];
      const wanted = [...names.gives, names.score, names.map].filter((tensor) => tensor);
      const found = await session.run(feeds, wanted).catch((cause) => {
        throw new ModelError(
          `${file}: cannot score ${height} x ${width} (${cause.message})`,
        );
      });
      tensors = { ...tensors, ...found };
    }
    const map = last.map && tensors[last.map];
    const mapSize = map?.dims.slice(1);
    return { score: tensors[last.score].data[0], map: map?.data, mapSize };
  };
}

/** The one threshold rule, in float32. */
const isAnomaly = (score, threshold) => Math.fround(score) >= Math.fround(threshold);

function relativeDifference(found, expected) {
  const scale = Math.max(Math.abs(found), Math.abs(expected), TINY);
  return Math.abs(found - expected) / scale;
}

/** Give the largest |difference| of two maps as a share of the expected map's range. */
function differenceOfRange(found, expected) {
  let [largest, low, high] = [0, Infinity, -Infinity];
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(found[i] - expected[i])); // NaN stays NaN
    low = Math.min(low, expected[i]);
    high = Math.max(high, expected[i]);
  }
  // A flat map has no range: a thousandth of its largest value stands in.
  const flat = Math.max(Math.abs(low), Math.abs(high)) * 1e-3;
  return largest / Math.max(high - low, flat, TINY);
}

function rowOf(input, { name, threshold }, score) {
  const label = isAnomaly(score, threshold) ? "anomaly" : "normal";
  return { input, category: name, score, threshold, label };
}

/** Give the row of a golden; `agrees` is null where only the decoder differs. */
async function replay(root, config, category, run, golden) {
  const bytes = bundle.readListed(root, config, golden.image, "golden_image");
  const picture = decodePng(bytes, config.input, golden.image);
  const { score, map, mapSize } = await run(picture);
  const expectedScore = field(golden, ["score"], "number");
  const scoreDiff = relativeDifference(score, expectedScore);
  let mapDiff = null;
  if (golden.map != null && map) {
    const stored = bundle.readListed(root, config, golden.map, "golden_map");
    mapDiff = differenceOfRange(map, bundle.readMap(stored, mapSize, golden.map));
  }
  const allowed = (name) => field(config, ["parity", "tolerances", name], "number");
  const { threshold } = category;
  let agrees =
    scoreDiff <= allowed("score_rel") &&
    (mapDiff === null || mapDiff <= allowed("map_of_range")) &&
    isAnomaly(score, threshold) === isAnomaly(expectedScore, threshold);
  if (bundle.sha256(picture.rgb) !== golden.pixels_sha256) {
    console.error(`${golden.image}: decoded to other pixels than at export; not judged`);
    agrees = null;
  }
  return {
    ...rowOf(golden.image, category, score),
    expected_score: expectedScore,
    rel_diff: scoreDiff,
    map_diff_of_range: mapDiff,
    agrees,
  };
}

async function main() {
  let options;
  try {
    const known = { category: { type: "string" } };
    options = parseArgs({ options: known, allowPositionals: true });
    if (!options.positionals.length) throw new Error("BUNDLE is missing");
  } catch (cause) {
    console.error(cause.message);
    console.error("usage: node run_bundle.mjs BUNDLE [--category C] [IMAGE.png ...]");
    return 2;
  }
  const [folder, ...images] = options.positionals;
  let root;
  try {
    root = realpathSync(folder);
  } catch (cause) {
    refuse(`${folder}: cannot be opened (${cause.code}), expected a bundle folder`);
  }
  const config = bundle.readConfig(root);
  for (const limit of ["min_side", "max_pixels"]) field(config, ["input", limit], "number");
  const category = bundle.selectCategory(config, options.values.category);
  const run = await openChain(root, config, category);

  let [judged, disagree, failed] = [0, 0, 0];
  for (const golden of field(config, ["parity", "goldens"], "array")) {
    if (golden.category !== category.name) continue;
    if (!/\.png$/i.test(golden.image)) {
      console.error(`${golden.image}: skipped, this example reads PNG only`);
      continue;
    }
    const row = await replay(root, config, category, run, golden);
    if (row.agrees !== null) judged++;
    if (row.agrees === false) disagree++;
    console.log(JSON.stringify(row));
  }
  for (const image of images) {
    try {
      const picture = decodePng(readFileSync(image), config.input, image);
      const { score } = await run(picture);
      if (!Number.isFinite(score)) throw new ImageError(`${image}: score is ${score}`);
      console.log(JSON.stringify(rowOf(image, category, score)));
    } catch (cause) {
      failed++;
      const row = { input: image, category: category.name, error: cause.message };
      console.log(JSON.stringify(row));
    }
  }
  if (!judged) console.error(`${folder}: no golden could be judged: nothing is proven`);
  if (disagree || !judged) return 5;
  return failed ? 4 : 0;
}

try {
  process.exitCode = await main();
} catch (cause) {
  // An ImageError that reaches this line is about a golden of the bundle.
  const kinds = [BundleError, ImageError, ModelError];
  if (!kinds.some((kind) => cause instanceof kind)) throw cause;
  console.error(`refused: ${cause.message}`);
  process.exitCode = cause instanceof ModelError ? 5 : 3;
}
