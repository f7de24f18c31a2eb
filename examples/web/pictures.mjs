// Turns PNG and JPEG files into the graph's pixels by the browser's own decoder: EXIF
// turned, alpha dropped, colour profiles and gamma left alone.

import { checkSize, ImageError, readPngHeader } from "./picture_header.mjs";

// "from-image" turns by EXIF. The two others leave the stored numbers as they are: by
// default browsers convert colours to the screen's and multiply them by alpha.
const AS_STORED = {
  imageOrientation: "from-image",
  colorSpaceConversion: "none",
  premultiplyAlpha: "none",
};

/** Give {rgb, height, width, format} of a picture file; rgb is height x width x 3. */
export async function decode(bytes, rules, where) {
  const header = readHeader(bytes, where);
  // Before it is decoded: a small file may hold a huge picture. Its EXIF may yet turn it.
  checkSize(header, { ...rules, expected_size: null }, where);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes]), AS_STORED);
  } catch (cause) {
    throw new ImageError(`${where}: this browser cannot decode it (${cause.message})`);
  }
  try {
    checkSize(bitmap, rules, where);
    const { height, width } = bitmap;
    return { rgb: dropAlpha(rgbaOf(bitmap, where)), height, width, format: header.format };
  } finally {
    bitmap.close();
  }
}

function readHeader(bytes, where) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return readJpegHeader(bytes, where);
  if (bytes[0] !== 0x89)
    throw new ImageError(`${where}: is neither PNG nor JPEG; save it as PNG`);
  const header = readPngHeader(bytes, where);
  const refused = {
    acTL: "holds several pictures, expected one",
    eXIf: "has an EXIF block, by which not every browser turns a PNG; save it without",
  };
  for (const [chunk, why] of Object.entries(refused))
    if (header.chunks.has(chunk)) throw new ImageError(`${where}: ${why}`);
  return { ...header, format: "PNG" };
}

/** Give {height, width, format} of a JPEG file that is whole, with 8 bits, no CMYK. */
function readJpegHeader(bytes, where) {
  const must = (accepted, found) => {
    if (!accepted) throw new ImageError(`${where}: ${found}`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let [at, frame, inScan] = [2, undefined, false];
  for (;;) {
    // In a scan, FF 00 is a stuffed byte and FF D0 to FF D7 are restarts.
    const isMarker = (code) =>
      code !== 0 && code !== 0xff && !(inScan && code >= 0xd0 && code <= 0xd7);
    while (at + 1 < bytes.length && !(bytes[at] === 0xff && isMarker(bytes[at + 1]))) at++;
    // Browsers paint what is missing grey and say nothing.
    must(at + 1 < bytes.length, "is cut off, it has no end mark; copy it again");
    const marker = bytes[at + 1];
    at += 2;
    if (marker === 0xd9) break;
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    must(at + 8 < bytes.length, "ends inside of a segment; copy it again");
    const isOther = [0xc4, 0xc8, 0xcc].includes(marker); // tables, in the same range
    if (marker >= 0xc0 && marker <= 0xcf && !isOther && !frame) {
      must(bytes[at + 2] === 8, `${bytes[at + 2]} bits per channel, expected 8`);
      must([1, 3].includes(bytes[at + 7]), `${bytes[at + 7]} channels, expected 1 or 3`);
      frame = { height: view.getUint16(at + 3), width: view.getUint16(at + 5) };
    }
    at += Math.max(view.getUint16(at), 2);
    inScan = marker === 0xda;
  }
  must(frame, "has no frame header");
  return { ...frame, format: "JPEG" };
}

/** Give the stored red, green, blue and alpha of an ImageBitmap. */
function rgbaOf(bitmap, where) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const flat = canvas.getContext("2d", { willReadFrequently: true });
  if (!flat) throw new ImageError(`${where}: too large for this browser's canvas`);
  flat.drawImage(bitmap, 0, 0);
  const { data } = flat.getImageData(0, 0, width, height);
  for (let at = 3; at < data.length; at += 4)
    // A flat canvas multiplies by alpha: what is not opaque loses its colours there.
    if (data[at] !== 255) return rgbaByTexture(bitmap, where);
  return data;
}

/** Give the same of a picture with alpha: textures keep colours apart from it. */
function rgbaByTexture(bitmap, where) {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE))
    throw new ImageError(
      `${where}: has transparent pixels, whose colours this browser does not tell ` +
        "(no WebGL 2, or too large for it); save the picture without alpha",
    );
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  const [target, to] = [gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0];
  gl.framebufferTexture2D(target, to, gl.TEXTURE_2D, texture, 0);
  const rgba = new Uint8Array(width * height * 4);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
  const failed = gl.getError() !== gl.NO_ERROR || gl.isContextLost();
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep a few only
  if (failed) throw new ImageError(`${where}: WebGL cannot read it; save it without alpha`);
  return rgba;
}

function dropAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  return rgb;
}
