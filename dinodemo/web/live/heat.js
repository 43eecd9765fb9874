// Heat maps over a photo, joined with pictures.js. value: what tasks/attention/live.py's live_value returns. The
// arithmetic is that of io/render.py's overlay.
const MAPS = /*MAPS*/{}, NAMES = ['head', 'mass', 'opacity', 'map', 'smooth'];
let heats = new Map();

function colours(name) {
  if (typeof MAPS[name] === 'string') MAPS[name] = bytes(MAPS[name]);
  return MAPS[name];
}

// -- arithmetic ---------------------------------------------------------------------------------------------------
function combine(map, head) {  // all heads -> one map
  const [heads, h, w] = map.grid, size = h * w;
  if (heads === 1) return map.rows;
  if (head !== 'mean' && head !== 'max') {
    const chosen = Math.min(+head, heads) - 1;
    return map.rows.subarray(chosen * size, (chosen + 1) * size);
  }
  const made = new Float32Array(size);
  for (let p = 0; p < size; p++) {
    let sum = 0, most = -Infinity;
    for (let at = p; at < map.rows.length; at += size) {
      sum += map.rows[at];
      if (map.rows[at] > most) most = map.rows[at];
    }
    made[p] = head === 'mean' ? sum / heads : most;
  }
  return made;
}

function keepMass(values, share) {  // zero all but the strongest that together hold the share
  const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
  const made = new Float32Array(values.length), bound = share * values.reduce((sum, value) => sum + value, 0);
  let before = 0;
  for (const p of order) {
    if (before >= bound) break;
    made[p] = values[p];
    before += values[p];
  }
  return made;
}

function enlarge(values, [h, w], [height, width], smooth) {  // values from 0 to 1 -> levels to 255, clipped and rounded
  const wide = new Float32Array(h * width), made = new Uint8ClampedArray(height * width);
  let [at, weight] = taps(w, width, smooth);
  for (let y = 0, to = 0; y < h; y++) for (let x = 0, i = 0, row = y * w; x < width; x++, to++, i += 4)
    wide[to] = 255 * (values[row + at[i]] * weight[i] + values[row + at[i + 1]] * weight[i + 1]
      + values[row + at[i + 2]] * weight[i + 2] + values[row + at[i + 3]] * weight[i + 3]);
  [at, weight] = taps(h, height, smooth);
  for (let y = 0, to = 0; y < height; y++) {
    const i = 4 * y, a = at[i] * width, b = at[i + 1] * width, c = at[i + 2] * width, d = at[i + 3] * width;
    const wa = weight[i], wb = weight[i + 1], wc = weight[i + 2], wd = weight[i + 3];
    for (let x = 0; x < width; x++, to++)
      made[to] = wide[a + x] * wa + wide[b + x] * wb + wide[c + x] * wc + wide[d + x] * wd;
  }
  return made;
}

function normalise(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return values.map((value) => high > low ? (value - low) / (high - low) : 0);
}

// the map's colours at a picture's size, transparent where nothing is; kept until something of it changes
function heatOf(map, head, mass, height, width) {
  const key = [head, mass, look.smooth, look.map, height, width].join(), slot = map.target + (map.each ? head : '');
  const kept = heats.get(slot);
  if (kept?.key === key) return kept.canvas;
  const grid = map.grid.slice(1), size = [height, width], table = colours(look.map);
  const all = combine(map, head), values = mass < 100 ? keepMass(all, mass / 100) : all;
  const level = enlarge(normalise(values), grid, size, look.smooth);
  const cut = !map.bare && values.includes(0);  // what a share cuts off is hidden
  const cover = cut ? enlarge(values.map((value) => +(value > 0)), grid, size, look.smooth) : null;
  const same = kept?.canvas.width === width && kept.canvas.height === height;
  const canvas = same ? kept.canvas : new OffscreenCanvas(width, height), pen = canvas.getContext('2d', SOFTWARE);
  const pixels = same ? kept.pixels : new ImageData(width, height);
  const out = new Uint32Array(pixels.data.buffer), words = new Uint32Array(256);
  for (let c = 0; c < 256; c++) words[c] = table[3 * c] | table[3 * c + 1] << 8 | table[3 * c + 2] << 16;
  for (let p = 0; p < out.length; p++) out[p] = words[level[p]] | (cover ? cover[p] : 255) << 24;
  pen.putImageData(pixels, 0, 0);
  heats.set(slot, {key, canvas, pixels});
  return canvas;
}

// -- drawing ------------------------------------------------------------------------------------------------------
function paint(canvas, map, head, mass) {
  const {width, height} = canvas, pen = canvas.getContext('2d', SOFTWARE);
  pen.globalAlpha = 1;
  pen.drawImage(photoAt(0, height, width), 0, 0);
  pen.globalAlpha = map.bare ? 1 : look.opacity;
  pen.drawImage(heatOf(map, head, mass, height, width), 0, 0);
  pen.globalAlpha = 1;
  if (map.patch) outline(pen, map, width, height);
}

function outline(pen, map, width, height) {
  const [row, column] = map.patch, [, h, w] = map.grid, thick = Math.max(2, Math.round(Math.max(height, width) / 320));
  const at = (part, count, size) => Math.floor(part * size / count) + 0.5;
  const left = at(column, w, width), top = at(row, h, height);
  pen.lineJoin = 'round';
  for (const [colour, line] of [['#000', thick + 2], ['#fff', thick]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = line;
    pen.strokeRect(left, top, at(column + 1, w, width) - left, at(row + 1, h, height) - top);
  }
}

function pictures(map) {
  return [...document.querySelectorAll(`${map.target} img`)].filter((image) => image.complete && image.naturalWidth);
}

function draw() {
  if (!look || !photos.length) return;
  for (const map of given.maps)
    pictures(map).forEach((image, i) => {
      const share = shown(image);
      if (!share) return;
      const canvas = over(image, Math.max(1, Math.round(image.naturalHeight * share)), Math.max(1, Math.round(image.naturalWidth * share)));
      paint(canvas, map, map.each ? `${i + 1}` : look.head, map.chosen ? look.mass : 100);
    });
}

function arrived() {
  heats = new Map();
  given.maps = given.maps.map((map) => ({...map, rows: new Float32Array(bytes(map.rows).buffer)}));
}

function possible() { return true; }

function told() { return []; }
