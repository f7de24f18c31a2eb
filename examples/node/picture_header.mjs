// What a picture file says of itself before it is decoded, and what is refused by it.

export class ImageError extends Error {}

export const PNG_SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

const beginsWith = (bytes, start) => start.every((value, at) => bytes[at] === value);

/** Refuse a picture of a size that the bundle's input rules do not take. */
export function checkSize({ height, width }, rules, where) {
  const must = (accepted, expected) => {
    const found = `${height} x ${width} pixels (height x width)`;
    if (!accepted) throw new ImageError(`${where}: ${found}, expected ${expected}`);
  };
  const { min_side: low, max_pixels: high } = rules;
  must(Math.min(width, height) >= low, `sides from ${low}`);
  must(width * height <= high, `at most ${high} in all`);
  const [wantedHeight, wantedWidth] = rules.expected_size ?? [height, width];
  const fits = height === wantedHeight && width === wantedWidth;
  must(fits, `${wantedHeight} x ${wantedWidth}`);
}

/** Give {height, width, colour, chunks} of a PNG file with at most 8 bits per channel. */
export function readPngHeader(bytes, where) {
  const must = (accepted, found) => {
    if (!accepted) throw new ImageError(`${where}: ${found}`);
  };
  must(bytes.length > 32 && beginsWith(bytes, PNG_SIGNATURE), "is no PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  must(bytes[24] <= 8, `${bytes[24]} bits per channel, expected 8; save it with 8`);
  const chunks = new Set();
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at))
    chunks.add(String.fromCharCode(...bytes.subarray(at + 4, at + 8)));
  // A picture that is cut off lacks its end: decoders may fill it up instead of failing.
  must(chunks.has("IEND"), "is cut off or damaged; copy it again");
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  return { width, height, colour: bytes[25], chunks };
}
