// Reads a PyImgAno bundle: the document, then listed files that are proven to be so.
// The format is described in docs/bundle_format.md.

import { createHash } from "node:crypto";
import { readFileSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";

const CONFIG = "infer_config.json";
const SCHEMA = "pyimgano/infer_config";
const [MAJOR, MINOR] = [1, 2];
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

export class BundleError extends Error {}

export function refuse(message) {
  throw new BundleError(message);
}

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

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
export function readConfig(root) {
  const where = join(root, CONFIG);
  let config;
  try {
    const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    config = JSON.parse(utf8.decode(readFileSync(where)));
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
  return config;
}

/** Give {name, graph, threshold} of the named category, or of the only one. */
export function selectCategory(config, wanted) {
  const names = Object.keys(field(config, ["categories"], "object")).sort();
  const name = wanted ?? (names.length === 1 ? names[0] : undefined);
  if (!names.includes(name)) {
    const found = wanted === undefined ? "none was named (--category)" : `no "${wanted}"`;
    refuse(`${CONFIG}: categories: ${found}; it holds: ${names.join(", ")}`);
  }
  const at = ["categories", name];
  for (const key of ["roi", "tiling", "regions"])
    if (field(config, at, "object")[key] != null)
      refuse(`${CONFIG}: ${at.join(".")}.${key}: this reader knows none; ${UPGRADE}`);
  if (field(config, [...at, "thresholds", "compare"], "string") !== ">=")
    refuse(`${CONFIG}: ${at.join(".")}.thresholds.compare: is not ">="; ${UPGRADE}`);
  const graph = field(config, [...at, "graph"], "array");
  const known = Object.keys(field(config, ["models"], "object"));
  if (!graph.length || new Set(graph).size < graph.length || !graph.every((m) => known.includes(m)))
    refuse(`${CONFIG}: ${at.join(".")}.graph: expected each once, of: ${known.join(", ")}`);
  const threshold = field(config, [...at, "thresholds", "image"], "number");
  return { name, graph, threshold };
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

/** Give the bytes of a listed file: a plain file with the listed size and sha256. */
export function readListed(root, config, path, role) {
  const files = field(config, ["files"], "array");
  const entry = files.find((file) => file?.path === path && file.role === role);
  if (!entry || !PATH.test(path))
    refuse(`${CONFIG}: "${path}" is no listed ${role} inside the bundle`);
  const file = join(root, ...path.split("/"));
  const again = "copy the whole bundle folder again";
  let bytes;
  try {
    const facts = statSync(file);
    if (realpathSync(file) !== file || !facts.isFile() || facts.nlink > 1)
      refuse(`${file}: is a link or no regular file; ${again}`);
    if (facts.size !== entry.size)
      refuse(`${file}: ${facts.size} bytes, expected ${entry.size}; ${again}`);
    bytes = readFileSync(file);
  } catch (cause) {
    if (cause instanceof BundleError) throw cause;
    refuse(`${file}: cannot be read (${cause.code}); ${again}`);
  }
  const found = sha256(bytes);
  if (found !== entry.sha256)
    refuse(`${file}: sha256 is ${found}, expected ${entry.sha256}; ${again}`);
  return bytes;
}

/** Give the values of a golden's map: .npy 1.0, float32, C order, this shape. */
export function readMap(bytes, [height, width], where) {
  const start = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, start).trim();
  const shape = `(${height}, ${width})`;
  const expected = `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`;
  const magic = bytes.toString("latin1", 0, 8) === "\x93NUMPY\x01\x00";
  if (!magic || header !== expected || bytes.length !== start + 4 * height * width)
    refuse(`${where}: found ${header}, expected ${expected}; export the bundle again`);
  // A copy begins at 0, where a Float32Array may lie; the machine is little-endian.
  const from = bytes.byteOffset + start;
  return new Float32Array(bytes.buffer.slice(from, bytes.byteOffset + bytes.length));
}
