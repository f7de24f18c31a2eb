// Bundle folders of a browser: behind an address, dropped on the page, or chosen. Each
// is what bundle.mjs reads from: { name, read(path, size) }. Nothing is listed or looked
// for: only the files that the document names are ever asked for.

import { CONFIG, COPY_AGAIN, expectSize, refuse } from "./bundle.mjs";

/** Give the folder behind an address of the page's own server. */
export function folderAt(address) {
  const base = new URL(address.replace(/\/*$/, "/"), document.baseURI);
  // The page promises to ask nobody else; its security policy would refuse it as well.
  if (base.origin !== location.origin)
    refuse(`${address}: is on another server; copy the bundle beside this page`);
  const name = base.pathname.replace(/\/$/, "");
  const read = async (path, size) => {
    const where = `${name}/${path}`;
    let response, bytes;
    try {
      // no-cache: ask the server whether the file is still the same.
      response = await fetch(new URL(path, base), { cache: "no-cache", redirect: "error" });
      bytes = new Uint8Array(await response.arrayBuffer());
    } catch (cause) {
      refuse(`${where}: cannot be fetched (${cause.message}); is the server running?`);
    }
    if (!response.ok)
      refuse(`${where}: the server answers ${response.status}; is the bundle there?`);
    expectSize(where, bytes.length, size);
    return bytes;
  };
  return { name, read };
}

/** Give the folder whose files `fileOf(path)` gives: a promise of a File or nothing. */
function folderOf(name, fileOf) {
  const read = async (path, size) => {
    const where = `${name}/${path}`;
    const wrong = path === CONFIG ? "choose the bundle folder itself" : COPY_AGAIN;
    try {
      const file = await fileOf(path);
      if (!file) refuse(`${where}: is not there; ${wrong}`);
      expectSize(where, file.size, size);
      return new Uint8Array(await file.arrayBuffer());
    } catch (cause) {
      if (!(cause instanceof DOMException)) throw cause;
      refuse(`${where}: cannot be read (${cause.name}); ${wrong}`);
    }
  };
  return { name, read };
}

/** Give a folder that was dropped: the entry that its DataTransferItem gave. */
export function droppedFolder(entry) {
  const ask = (object, method, ...given) =>
    new Promise((resolve, reject) => object[method](...given, resolve, reject));
  return folderOf(entry.name, async (path) =>
    ask(await ask(entry, "getFile", path, {}), "file"),
  );
}

/** Give a folder that was chosen by <input webkitdirectory>: the files in it. */
export function chosenFolder(files) {
  const inside = new Map();
  for (const file of files) {
    const [, ...path] = file.webkitRelativePath.split("/");
    inside.set(path.join("/"), file);
  }
  const [name] = files[0].webkitRelativePath.split("/");
  return folderOf(name, async (path) => inside.get(path));
}
