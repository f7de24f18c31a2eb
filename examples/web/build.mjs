// Puts the page together in site/: this folder's files, the Node example's reader, and
// onnxruntime-web from node_modules. What is there can be copied to any web server.
//
//     npm run build [-- BUNDLE]      BUNDLE is copied to site/bundle

import { copyFileSync, cpSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

const HERE = import.meta.dirname;
const SITE = join(HERE, "site");
const OURS = ["index.html", "style.css", "page.mjs", "view.mjs", "folders.mjs"];
const PICTURES = ["pictures.mjs", "heat.mjs"];
const READER = ["bundle.mjs", "scoring.mjs", "picture_header.mjs"];
// The build without GPU kernels: its scores are those of a CPU.
const ENGINE = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"];

const take = (folder, names) => {
  for (const name of names) copyFileSync(join(HERE, folder, name), join(SITE, name));
};

rmSync(SITE, { recursive: true, force: true });
mkdirSync(SITE);
take(".", [...OURS, ...PICTURES]);
take("../node", READER);
take("node_modules/onnxruntime-web/dist", ENGINE);
const [bundle] = process.argv.slice(2);
if (bundle) cpSync(bundle, join(SITE, "bundle"), { recursive: true });
console.log("site/ is ready: python3 -m http.server --directory site");
