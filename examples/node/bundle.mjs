// Reads a PyImgAno bundle: the document, then listed files that are proven to be so.
// The format is described in docs/bundle_format.md. Runs in Node and in browsers: where
// files come from is the caller's, as an object
//
//     { name, read(path, size) }    a promise of the file's bytes, a Uint8Array
//
// whose `read` refuses what is no plain file, or of another size where one is given.

export const CONFIG = "infer_config.json";
const SCHEMA = "pyimgano/infer_config";
const [MAJOR, MINOR] = [1, 3];
const REQUIREMENTS = new Set(); // no abilities: it cuts no tiles
const PIXEL_RULES = {
  color_order: "RGB",
  bit_depth: 8,
  exif: "apply",
  alpha: "drop",
  grey: "replicate",
};
// At most 8 plain names of 120 characters, none a device of Windows.
const NAME =
  "(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:[./]|$))" +
  "[a-z0-9](?:[a-z0-9._-]{0,118}[a-z0-9_-])?";
const PATH = new RegExp(`^${NAME}(?:/${NAME}){0,7}$`, "i");
const UPGRADE = "take a newer reader";
export const COPY_AGAIN = "copy the whole bundle folder again";

export class BundleError extends Error {}

export function refuse(message) {
  throw new BundleError(message);
}

/** Give the sha256 of bytes, by what Node and browsers share. */
export async function sha256(bytes) {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) refuse("no sha256 here: browsers give it on https: and localhost only");
  const digest = new Uint8Array(await subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Give the value at a path of keys, of this type; else refuse and name the place. */
export function field(document, keys, type) {
  let value = document;
  for (const key of keys) {
    const inside = value instanceof Object && Object.hasOwn(value, key);
    value = inside ? value[key] : undefined;
  }
  let found = typeof value;
  if (Array.isArray(value)) found = "array";
  if (value === null || (found === "number" && !Number.isFinite(value))) found = "none";
  if (found !== type) {
    const shown = JSON.stringify(value)?.slice(0, 60) ?? "nothing";
    const place = `${CONFIG}: ${keys.join(".")}`;
    refuse(`${place}: found ${shown}, expected ${type}; export the bundle again`);
  }
  return value;
}

/** Give the document of a bundle folder; one that this reader cannot honour is refused. */
export async function readConfig(folder) {
  const where = `${folder.name}/${CONFIG}`;
  const bytes = await folder.read(CONFIG);
  let config;
  try {
    const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    config = JSON.parse(utf8.decode(bytes));
  } catch (cause) {
    refuse(`${where}: is no readable JSON (${cause.message}); copy the bundle again`);
  }
  if (config?.schema !== SCHEMA)
    refuse(
      `${where}: expected "schema": "${SCHEMA}"; make one by "pyimgano bundle export"`,
    );
  const version = field(config, ["schema_version"], "string");
  const parts = /^(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$/.exec(version);
  if (!parts || Number(parts[1]) !== MAJOR || Number(parts[2]) > MINOR) {
    const reads = `this reader takes ${MAJOR}.0 to ${MAJOR}.${MINOR}`;
    refuse(`${where}: schema_version is "${version}", ${reads}; ${UPGRADE}`);
  }
  if (config.kind !== "bundle") {
    const found = JSON.stringify(config.kind);
    refuse(`${where}: kind is ${found}; export a run by "pyimgano bundle export"`);
  }
  const requires = field(config, ["requires"], "array");
  const unknown = requires.filter((name) => !REQUIREMENTS.has(name));
  if (unknown.length)
    refuse(`${where}: requires ${JSON.stringify(unknown)}, unknown here; ${UPGRADE}`);
  for (const [rule, known] of Object.entries(PIXEL_RULES))
    if (field(config, ["input", rule], typeof known) !== known)
      refuse(`${where}: input.${rule} is not ${JSON.stringify(known)}; ${UPGRADE}`);
  for (const limit of ["min_side", "max_pixels"]) field(config, ["input", limit], "number");
  return config;
}

/** Give what judges pictures of the named category, or of the only one. */
export function selectCategory(config, wanted) {
  const names = Object.keys(field(config, ["categories"], "object")).sort();
  const name = wanted ?? (names.length === 1 ? names[0] : undefined);
  if (!names.includes(name)) {
    const found = wanted === undefined ? "none was named" : `no "${wanted}"`;
    refuse(`${CONFIG}: categories: ${found}; it holds: ${names.join(", ")}`);
  }
  const at = ["categories", name];
  const category = field(config, at, "object");
  if (category.tiling != null)
    refuse(`${CONFIG}: ${at.join(".")}.tiling: this reader knows none; ${UPGRADE}`);
  // Regions that only explain change neither score nor label: they are left out.
  if ((category.regions?.policy ?? "image_threshold") !== "image_threshold")
    refuse(`${CONFIG}: ${at.join(".")}.regions: this reader finds none; ${UPGRADE}`);
  if (field(config, [...at, "thresholds", "compare"], "string") !== ">=")
    refuse(`${CONFIG}: ${at.join(".")}.thresholds.compare: is not ">="; ${UPGRADE}`);
  const graph = field(config, [...at, "graph"], "array");
  const known = Object.keys(field(config, ["models"], "object"));
  const isOnce = graph.length > 0 && new Set(graph).size === graph.length;
  if (!isOnce || !graph.every((model) => known.includes(model)))
    refuse(`${CONFIG}: ${at.join(".")}.graph: expected each once, of: ${known.join(", ")}`);
  const geometry = config.categories[name].map_geometry;
  if (geometry != null && !["stretch", "letterbox"].includes(geometry.mode))
    refuse(`${CONFIG}: ${at.join(".")}.map_geometry.mode: is unknown here; ${UPGRADE}`);
  const scores = field(config, [...at, "calibration", "image_scores"], "array");
  if (!scores.every(Number.isFinite))
    refuse(`${CONFIG}: ${at.join(".")}.calibration.image_scores: expected numbers`);
  return {
    name,
    graph,
    threshold: field(config, [...at, "thresholds", "image"], "number"),
    pixelThreshold: config.categories[name].thresholds.pixel ?? undefined,
    scores, // of held-out normals, ascending
    mapMode: geometry?.mode,
  };
}

/** Give the one tensor of a kind, or undefined where there is none. */
export function tensorOf(tensors, kind, dtype) {
  const [tensor, second] = tensors.filter((entry) => entry?.kind === kind);
  if (second || (tensor && tensor.dtype !== dtype))
    refuse(`${CONFIG}: models: expected at most one ${kind}, of type ${dtype}; ${UPGRADE}`);
  return tensor;
}

/** Give the names of the tensors of kind features, which go from model to model. */
export function featuresOf(tensors) {
  const features = tensors.filter((entry) => entry?.kind === "features");
  if (features.some(({ name, dtype }) => typeof name !== "string" || dtype !== "float32"))
    refuse(`${CONFIG}: models: expected features of type float32; ${UPGRADE}`);
  return features.map(({ name }) => name);
}

/** Refuse a file of another size; a folder asks before it reads, where it can. */
export function expectSize(where, found, expected) {
  if (expected !== undefined && found !== expected)
    refuse(`${where}: ${found} bytes, expected ${expected}; ${COPY_AGAIN}`);
}

/** Give the bytes of a listed file: a plain file with the listed size and sha256. */
export async function readListed(folder, config, path, role) {
  const files = field(config, ["files"], "array");
  const entry = files.find((file) => file?.path === path && file.role === role);
  if (!entry || !PATH.test(path))
    refuse(`${CONFIG}: "${path}" is no listed ${role} inside the bundle`);
  const where = `${folder.name}/${path}`;
  if (!Number.isSafeInteger(entry.size)) refuse(`${CONFIG}: files: ${path} has no size`);
  const bytes = await folder.read(path, entry.size);
  const found = await sha256(bytes);
  if (found !== entry.sha256)
    refuse(`${where}: sha256 is ${found}, expected ${entry.sha256}; ${COPY_AGAIN}`);
  return bytes;
}

/** Give the values of a golden's map: .npy 1.0, float32, C order, this shape. */
export function readMap(bytes, [height, width], where) {
  const start = 10 + (bytes[8] | (bytes[9] << 8));
  const header = String.fromCharCode(...bytes.subarray(0, Math.min(start, 1000)));
  const shape = `(${height}, ${width})`;
  const expected = `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`;
  const found = header.slice(10).trim();
  const magic = header.startsWith("\x93NUMPY\x01\x00");
  if (!magic || found !== expected || bytes.length !== start + 4 * height * width)
    refuse(`${where}: found ${found}, expected ${expected}; export the bundle again`);
  // A copy begins at 0, where a Float32Array may lie; the machine is little-endian.
  return new Float32Array(new Uint8Array(bytes.subarray(start)).buffer);
}
