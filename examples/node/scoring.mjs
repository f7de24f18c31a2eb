// Runs a bundle's models and judges its goldens, by any onnxruntime for JavaScript:
// onnxruntime-node and onnxruntime-web are called alike, so `ort` is an argument.

import { field, readListed, readMap, refuse, sha256 } from "./bundle.mjs";
import { featuresOf, tensorOf } from "./bundle.mjs";

const TINY = 2 ** -126; // the smallest normal float32

export class ModelError extends Error {}

/** Give a model's session, and the names of its tensors by kind. */
async function openModel(ort, folder, config, name) {
  const at = ["models", name];
  const inputs = field(config, [...at, "inputs"], "array");
  const outputs = field(config, [...at, "outputs"], "array");
  const nameOf = (tensors, kind, dtype) => tensorOf(tensors, kind, dtype)?.name;
  const model = {
    file: field(config, [...at, "file"], "string"),
    image: nameOf(inputs, "image", "uint8"),
    takes: featuresOf(inputs),
    gives: featuresOf(outputs),
    score: nameOf(outputs, "score", "float32"),
    map: nameOf(outputs, "anomaly_map", "float32"),
  };
  const { file, image, takes, gives, score, map } = model;
  const bytes = await readListed(folder, config, file, "model");
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
    refuse(`${file}: onnxruntime refuses the model (${cause?.message ?? cause})`);
  }
  const known = [...model.session.inputNames, ...model.session.outputNames];
  const told = [image, ...takes, ...gives, score, map].filter((tensor) => tensor);
  const missing = told.filter((tensor) => !known.includes(tensor));
  if (missing.length) refuse(`${file}: has no tensor ${missing}; export the bundle again`);
  return model;
}

/** Give {score, release}: `score` runs a category's models in their order on pixels. */
export async function openChain(ort, folder, config, { name, graph }) {
  const models = [];
  const given = new Set();
  for (const [step, part] of graph.entries()) {
    const model = await openModel(ort, folder, config, part);
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

  /** Give {score, map, mapSize} of pixels: height x width x 3, uint8 RGB. */
  const score = async ({ rgb, height, width }) => {
    let tensors = {};
    const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
    for (const { session, file, ...names } of models) {
      const feeds = names.image ? { [names.image]: image } : {};
      for (const features of names.takes) feeds[features] = tensors[features];
      const wanted = [...names.gives, names.score, names.map].filter((tensor) => tensor);
      const found = await session.run(feeds, wanted).catch((cause) => {
        throw new ModelError(
          `${file}: cannot score ${height} x ${width} (${cause?.message ?? cause})`,
        );
      });
      tensors = { ...tensors, ...found };
    }
    const map = last.map && tensors[last.map];
    const mapSize = map?.dims.slice(1);
    return { score: tensors[last.score].data[0], map: map?.data, mapSize };
  };
  const release = () => Promise.all(models.map(({ session }) => session.release()));
  return { score, release };
}

/** The one threshold rule, in float32. */
export const isAnomaly = (score, threshold) => Math.fround(score) >= Math.fround(threshold);

/** Give the share of normals that score at least this high, or null: none were kept. */
export function pValue(score, { scores }) {
  const atLeast = scores.filter((normal) => isAnomaly(normal, score)).length;
  return scores.length ? (1 + atLeast) / (scores.length + 1) : null;
}

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

/** Compare a golden with what torch gave; `agrees` is null where the decoder differs. */
export async function replay({ folder, config, category, chain, decode }, golden) {
  const bytes = await readListed(folder, config, golden.image, "golden_image");
  const picture = await decode(bytes, config.input, golden.image);
  const { score, map, mapSize } = await chain.score(picture);
  const expectedScore = field(golden, ["score"], "number");
  const scoreDiff = relativeDifference(score, expectedScore);
  let mapDiff = null;
  if (golden.map != null && map) {
    const stored = await readListed(folder, config, golden.map, "golden_map");
    mapDiff = differenceOfRange(map, readMap(stored, mapSize, golden.map));
  }
  const allowed = (name) => field(config, ["parity", "tolerances", name], "number");
  const { threshold } = category;
  const samePixels = (await sha256(picture.rgb)) === golden.pixels_sha256;
  const agrees =
    scoreDiff <= allowed("score_rel") &&
    (mapDiff === null || mapDiff <= allowed("map_of_range")) &&
    isAnomaly(score, threshold) === isAnomaly(expectedScore, threshold);
  // Other pixels give another score: that says nothing about the model.
  return { score, expectedScore, scoreDiff, mapDiff, agrees: samePixels ? agrees : null };
}
