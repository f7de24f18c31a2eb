// Replays the PNG goldens of a PyImgAno bundle, then scores PNG pictures.
//
//     node run_bundle.mjs BUNDLE [--category C] [IMAGE.png ...]
//
// stdout: one JSON row a picture; stderr: sentences. Exit code: the first true of
// 3 bundle refused, 5 a golden disagrees or none could be judged, 4 an IMAGE could not
// be scored, 0; 2 usage.

import { readFileSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { PNG } from "pngjs";
import { BundleError, COPY_AGAIN, expectSize, field, refuse } from "./bundle.mjs";
import { readConfig, selectCategory } from "./bundle.mjs";
import { checkSize, ImageError, readPngHeader } from "./picture_header.mjs";
import { isAnomaly, ModelError, openChain, replay } from "./scoring.mjs";

// Before it is loaded: onnxruntime-node may send telemetry otherwise.
process.env.ORT_DISABLE_TELEMETRY ??= "1";
const { default: ort } = await import("onnxruntime-node");

/** Give a bundle folder on disk; what lies there behind a link is refused. */
function openFolder(path) {
  let name;
  try {
    name = realpathSync(path);
  } catch (cause) {
    refuse(`${path}: cannot be opened (${cause.code}), expected a bundle folder`);
  }
  const read = async (inside, size) => {
    const file = join(name, ...inside.split("/"));
    try {
      const facts = statSync(file);
      if (realpathSync(file) !== file || !facts.isFile() || facts.nlink > 1)
        refuse(`${file}: is a link or no regular file; ${COPY_AGAIN}`);
      expectSize(file, facts.size, size);
      return readFileSync(file);
    } catch (cause) {
      if (cause instanceof BundleError) throw cause;
      refuse(`${file}: cannot be read (${cause.code}); ${COPY_AGAIN}`);
    }
  };
  return { name, read };
}

/** Give a PNG file's pixels, uint8 RGB; size and kind are refused before decoding. */
function decodePng(bytes, rules, where) {
  const { height, width, colour, chunks } = readPngHeader(bytes, where);
  checkSize({ height, width }, rules, where);
  // pngjs blackens the colour that tRNS marks; alpha must be dropped, not applied. A
  // palette keeps its colours.
  const unknown = ["eXIf", "acTL", ...(colour === 3 ? [] : ["tRNS"])];
  const met = unknown.find((chunk) => chunks.has(chunk));
  if (met)
    throw new ImageError(`${where}: has ${met}, not handled here; save the picture plain`);
  let rgba;
  try {
    rgba = PNG.sync.read(bytes).data;
  } catch (cause) {
    throw new ImageError(`${where}: is damaged (${cause.message})`);
  }
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3)
    for (let channel = 0; channel < 3; channel++) rgb[to + channel] = rgba[from + channel];
  return { rgb, height, width };
}

function rowOf(input, { name, threshold }, score) {
  const label = isAnomaly(score, threshold) ? "anomaly" : "normal";
  return { input, category: name, score, threshold, label };
}

/** Print the row of a golden, and give whether it agrees. */
async function judge(opened, golden) {
  const found = await replay(opened, golden);
  if (found.agrees === null)
    console.error(`${golden.image}: decoded to other pixels than at export; not judged`);
  const row = {
    ...rowOf(golden.image, opened.category, found.score),
    expected_score: found.expectedScore,
    rel_diff: found.scoreDiff,
    map_diff_of_range: found.mapDiff,
    agrees: found.agrees,
  };
  console.log(JSON.stringify(row));
  return found.agrees;
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
  const [path, ...images] = options.positionals;
  const folder = openFolder(path);
  const config = await readConfig(folder);
  const category = selectCategory(config, options.values.category);
  const chain = await openChain(ort, folder, config, category);

  let [judged, disagree, failed] = [0, 0, 0];
  for (const golden of field(config, ["parity", "goldens"], "array")) {
    if (golden.category !== category.name) continue;
    if (!/\.png$/i.test(golden.image)) {
      console.error(`${golden.image}: skipped, this example reads PNG only`);
      continue;
    }
    const opened = { folder, config, category, chain, decode: decodePng };
    const agrees = await judge(opened, golden);
    if (agrees !== null) judged++;
    if (agrees === false) disagree++;
  }
  for (const image of images) {
    try {
      const picture = decodePng(readFileSync(image), config.input, image);
      const { score } = await chain.score(picture);
      if (!Number.isFinite(score)) throw new ImageError(`${image}: score is ${score}`);
      console.log(JSON.stringify(rowOf(image, category, score)));
    } catch (cause) {
      failed++;
      const row = { input: image, category: category.name, error: cause.message };
      console.log(JSON.stringify(row));
    }
  }
  if (!judged) console.error(`${path}: no golden could be judged: nothing is proven`);
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
