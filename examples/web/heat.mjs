// The anomaly map as colours over its picture, as in the runtime's overlays: one meaning
// of a colour for all pictures of a bundle, and a line around what reaches the threshold.

const LONGEST_SIDE = 1000; // of the drawing; scores and maps never see it
const LINE = 2; // pixels of it
const MOST_OPAQUE = 0.7; // of the colours, from the middle of the range on
const CONTOUR = [0, 255, 255]; // cyan: a hue that the colours do not have
// Inferno (by N. Smith and S. van der Walt, CC0) at tenths: as close as the eye can tell.
const INFERNO = [
  ...["#000004", "#160b39", "#420a68", "#6a176e", "#932667", "#bc3754"],
  ...["#dd513a", "#f37819", "#fca50a", "#f6d746", "#fcffa4"],
];
const parse = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const STOPS = INFERNO.map(parse);

export const COLOURS = `linear-gradient(to right, ${INFERNO.join(", ")})`; // for CSS

/** Give {low, high, threshold} of a category's colours, the same for all its pictures. */
export function heatRange({ scores, threshold, pixelThreshold }) {
  const at = pixelThreshold ?? threshold;
  const middle = scores.length >> 1;
  const pair = scores.length % 2 ? [middle, middle] : [middle - 1, middle];
  const median = (scores[pair[0]] + scores[pair[1]]) / 2 || 0; // 0 where there are none
  const step = at > median ? at - median : Math.abs(at) || 1;
  return { low: at - step, high: at + 2 * step, threshold: at };
}

/** Draw the model's pixels, and the map over them where one is given. */
export function drawPicture(canvas, { rgb, height, width }, heat) {
  const scale = LONGEST_SIDE / Math.max(height, width);
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.width = Math.max(1, Math.round(width * scale));
  const whole = new OffscreenCanvas(width, height);
  const pixels = new ImageData(width, height);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    for (let i = 0; i < 3; i++) pixels.data[to + i] = rgb[from + i];
    pixels.data[to + 3] = 255;
  }
  whole.getContext("2d").putImageData(pixels, 0, 0);
  const paper = canvas.getContext("2d");
  paper.drawImage(whole, 0, 0, canvas.width, canvas.height);
  if (!heat) return;
  const over = new OffscreenCanvas(canvas.width, canvas.height);
  over.getContext("2d").putImageData(colour(canvas, { height, width }, heat), 0, 0);
  paper.drawImage(over, 0, 0);
}

/** Give an ImageData of the drawing's size: the map's colours, transparent where low. */
function colour(drawing, picture, { map, mapSize, mapMode, range }) {
  const values = mapOver(drawing, picture, map, mapSize, mapMode);
  const { width, height } = drawing;
  const image = new ImageData(width, height);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++) {
      const isHigh = values[i] >= range.threshold;
      const [left, above] = [Math.max(x - LINE, 0), Math.max(y - LINE, 0)];
      const isEdge =
        isHigh !== values[y * width + left] >= range.threshold ||
        isHigh !== values[above * width + x] >= range.threshold;
      const share = (values[i] - range.low) / (range.high - range.low);
      const strength = Math.min(Math.max(share, 0), 1);
      const opacity = isEdge ? 1 : MOST_OPAQUE * Math.min(2 * strength, 1);
      image.data.set(isEdge ? CONTOUR : inferno(strength), 4 * i);
      image.data[4 * i + 3] = Math.round(255 * opacity);
    }
  return image;
}

/** Give the map's values at the pixels of the drawing: bilinear, half-pixel centres. */
export function mapOver(drawing, picture, map, [mapHeight, mapWidth], mode) {
  // A letterboxed map covers a canvas that holds the picture in its middle.
  const fit = (side, other, mapSide, mapOther) =>
    mode === "letterbox" ? Math.max(side, Math.ceil((other * mapSide) / mapOther)) : side;
  const { height, width } = picture;
  const tall = fit(height, width, mapHeight, mapWidth);
  const wide = fit(width, height, mapWidth, mapHeight);
  const rows = taps(drawing.height, height, mapHeight, tall);
  const columns = taps(drawing.width, width, mapWidth, wide);
  const values = new Float32Array(drawing.height * drawing.width);
  let i = 0;
  for (const y of rows)
    for (const x of columns) {
      const at = (row, column) => map[row * mapWidth + column];
      const upper = at(y.low, x.low) + x.share * (at(y.low, x.high) - at(y.low, x.low));
      const lower = at(y.high, x.low) + x.share * (at(y.high, x.high) - at(y.high, x.low));
      values[i++] = upper + y.share * (lower - upper);
    }
  return values;
}

/** Give, for each drawn line, the two map lines around it and the share of the second. */
function taps(drawn, side, mapSide, canvasSide) {
  const start = Math.floor((canvasSide - side) / 2);
  return Array.from({ length: drawn }, (_, i) => {
    const centre = start + ((i + 0.5) * side) / drawn;
    const place = (centre * mapSide) / canvasSide - 0.5;
    const clamped = Math.min(Math.max(place, 0), mapSide - 1);
    const low = Math.floor(clamped);
    return { low, high: Math.min(low + 1, mapSide - 1), share: clamped - low };
  });
}

function inferno(strength) {
  const place = strength * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((value, i) => value + (place - low) * (STOPS[low + 1][i] - value));
}
