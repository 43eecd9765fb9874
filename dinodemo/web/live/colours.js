// Patches in colours, joined with basis.js and pictures.js. value: what tasks/pca/live.py's live_value returns. The
// arithmetic is that of io/render.py's pca_picture.
const NAMES = ['foreground', 'threshold', 'red', 'green', 'blue', 'smooth', 'backdrop', 'side_by_side'];
const SKIP = {__type__: 'update'}, BLACK = 255 << 24, UNDRAWN = 'data:image/svg+xml,';
let drawn = new Map(), dimmed = new Map();

function arrived() {
  document.querySelectorAll('img[data-server-picture]').forEach((image) => {  // where the page shows them again
    if (image.src.startsWith(UNDRAWN)) image.src = image.dataset.serverPicture;
    delete image.dataset.serverPicture;
  });
  [fitted, drawn, dimmed] = [null, new Map(), new Map()];
  if (given.maps.length) openBasis(given.basis);
  else request();  // the server's captions
}

function limit() {  // of the first component, above which a patch is foreground; null for all
  if (basis.fixed) return basis.fixed.threshold === null ? null : Math.fround(basis.fixed.threshold);
  if (look.foreground === 'off') return null;
  return Math.fround(look.foreground === 'manual' ? look.threshold : basis.automatic);
}

function channels() { return [look.red, look.green, look.blue].map((component) => component - 1); }

function possible() {
  const found = fit(limit());
  return found !== null && channels().every((component) => component in found.axes);
}

function told() {  // what threshold and text become
  const cut = limit(), {ratios} = fit(cut), words = given.words, names = ['red', 'green', 'blue'];
  const each = ratios.map((ratio, i) => {
    const name = names[channels().lastIndexOf(i)];
    return `${i + 1}: ${percent(ratio, 1)}${name ? ` (${name})` : ''}`;
  });
  const together = percent(ratios.reduce((sum, ratio) => sum + ratio, 0), 0);
  const origin = filled(words.basis, cut === null ? words.off : filled(words.above, rounded(cut, 2)));
  const threshold = look.foreground === 'auto' && cut ? {...SKIP, value: +rounded(cut, 2)} : SKIP;
  return [threshold, `${origin}\n\n${filled(words.variance, each.join(' · '), together)}`];
}

function rounded(value, digits) {  // a tie goes to the even digit, as in Python
  const scaled = value * 10 ** digits, low = Math.floor(scaled);
  return (scaled - low === 0.5 ? (low + low % 2) / 10 ** digits : value).toFixed(digits);
}

function percent(share, digits) { return `${rounded(100 * share, digits)}%`; }

function filled(text, ...values) { return text.split('{}').map((part, i) => part + (values[i] ?? '')).join(''); }

// -- drawing ------------------------------------------------------------------------------------------------------
function isInside() {  // per patch; a fixed basis has no sums
  const cut = limit();
  return basis.first.map((value) => +(cut === null || value > cut));
}

function squares(map, colours, mask, under, out, width, height) {  // each patch a square
  const [h, w] = map.grid, words = new Uint32Array(h * w);
  for (let p = 0, at = map.start; p < words.length; p++, at++) {
    const [r, g, b] = colours.map((channel) => Math.round(255 * channel[at]));
    words[p] = mask[at] ? r | g << 8 | b << 16 | BLACK : 0;
  }
  const [across] = taps(w, width, false), [down] = taps(h, height, false);
  for (let y = 0, to = 0; y < height; y++) {
    const row = down[4 * y] * w;
    if (!under && y && row === down[4 * y - 4] * w) {
      out.copyWithin(to, to - width, to);
      to += width;
    } else for (let x = 0; x < width; x++, to++) out[to] = words[row + across[4 * x]] || (under ? under[to] : BLACK);
  }
}

function blended(map, colours, mask, under, out, width, height) {  // weighted, so that no black bleeds in
  const [h, w] = map.grid, wide = new Float32Array(h * width * 4), weighted = new Float32Array(h * w * 4);
  for (let p = 0, at = map.start; p < h * w; p++, at++) {
    if (!mask[at]) continue;
    colours.forEach((channel, c) => { weighted[4 * p + c] = channel[at]; });
    weighted[4 * p + 3] = 1;
  }
  let [at, weight] = taps(w, width, true);
  for (let y = 0, to = 0; y < h; y++) for (let x = 0, i = 0; x < width; x++, i += 4) for (let c = 0; c < 4; c++, to++)
    wide[to] = weighted[4 * (y * w + at[i]) + c] * weight[i] + weighted[4 * (y * w + at[i + 1]) + c] * weight[i + 1]
      + weighted[4 * (y * w + at[i + 2]) + c] * weight[i + 2] + weighted[4 * (y * w + at[i + 3]) + c] * weight[i + 3];
  [at, weight] = taps(h, height, true);
  for (let y = 0, to = 0; y < height; y++) {
    const i = 4 * y, rows = [0, 1, 2, 3].map((tap) => at[i + tap] * width * 4);
    let [a, b, c, d] = rows;
    const wa = weight[i], wb = weight[i + 1], wc = weight[i + 2], wd = weight[i + 3];
    for (let x = 0; x < width; x++, to++, a += 4, b += 4, c += 4, d += 4) {
      const share = wide[a + 3] * wa + wide[b + 3] * wb + wide[c + 3] * wc + wide[d + 3] * wd;
      if (share <= 0.5) {
        out[to] = under ? under[to] : BLACK;
        continue;
      }
      const full = 255 / Math.min(share, 1);
      const red = (wide[a] * wa + wide[b] * wb + wide[c] * wc + wide[d] * wd) * full;
      const green = (wide[a + 1] * wa + wide[b + 1] * wb + wide[c + 1] * wc + wide[d + 1] * wd) * full;
      const blue = (wide[a + 2] * wa + wide[b + 2] * wb + wide[c + 2] * wc + wide[d + 2] * wd) * full;
      out[to] = level(red) | level(green) << 8 | level(blue) << 16 | BLACK;
    }
  }
}

function level(value) { return value <= 0 ? 0 : value >= 255 ? 255 : value + 0.5 | 0; }

function dimmedPhoto(index, height, width) {
  const key = [index, height, width].join();
  if (!dimmed.has(key)) {
    if (dimmed.size >= MOST_KEPT) dimmed.clear();
    const pixels = photoAt(index, height, width).getContext('2d').getImageData(0, 0, width, height);
    dimmed.set(key, new Uint32Array(pixels.data.buffer).map((pixel) => pixel >>> 2 & 0x3f3f3f | BLACK));
  }
  return dimmed.get(key);
}

function coloured(index, height, width) {  // one photo's colours at a picture's size; kept until a control moves
  const key = [index, height, width].join(), kept = drawn.get(key), now = JSON.stringify([look, limit()]);
  if (kept?.now === now) return kept.pixels;
  if (drawn.size >= MOST_KEPT) drawn.clear();
  const pixels = kept?.pixels || new ImageData(width, height), out = new Uint32Array(pixels.data.buffer);
  const under = look.backdrop ? dimmedPhoto(index, height, width) : null, paint = look.smooth ? blended : squares;
  paint(given.maps[index], channels().map(scoresOf), isInside(), under, out, width, height);
  drawn.set(key, {now, pixels});
  return pixels;
}

function pictures() {  // [picture, which photo]: the cells, the strip below an opened one, the opened one
  const find = (selector) => [...document.querySelectorAll(`${given.maps[0].target} ${selector}`)];
  const cells = find('.gallery-item'), opened = cells.findIndex((cell) => cell.querySelector('.selected'));
  return [
    ...cells.map((cell, i) => [cell.querySelector('img'), i]),
    ...find('.thumbnails img').map((image, i) => [image, i]),
    ...find('.media-button img').map((image) => [image, opened]),
  ].filter(([image, i]) => i in photos && image?.complete && image.naturalWidth);
}

function draw() {
  if (!given.maps.length) return tellShares(given.captions || []);
  if (!look || !photos.length || !possible()) return;
  for (const [image, i] of pictures()) {
    const {naturalWidth: width, naturalHeight: height} = photos[i], tall = height >= width, beside = look.side_by_side;
    const size = (w, h) => [beside && tall ? 2 * w : w, beside && !tall ? 2 * h : h];
    const whole = size(width, height), share = shown(image);
    if (image.naturalWidth !== whole[0] || image.naturalHeight !== whole[1]) reshape(image, whole);  // then it loads
    else if (share) {
      const w = Math.max(1, Math.round(width * share)), h = Math.max(1, Math.round(height * share)), [across, down] = size(w, h);
      const pen = over(image, down, across).getContext('2d', SOFTWARE);
      if (beside) pen.drawImage(photoAt(i, h, w), 0, 0);
      pen.putImageData(coloured(i, h, w), across - w, down - h);
    }
  }
  const mask = isInside();
  tellShares(given.maps.map(({start, grid: [h, w], name}) => {
    const part = mask.subarray(start, start + h * w);
    return filled(given.words.caption, name, percent(part.reduce((sum, one) => sum + one, 0) / part.length, 0));
  }));
}

function reshape(image, [width, height]) {  // a picture of another shape to draw on
  if (!image.src.startsWith(UNDRAWN)) image.dataset.serverPicture = image.src;
  image.src = `${UNDRAWN}${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"/>`)}`;
}

function tellShares(captions) {  // into the text nodes, which stay the page's own
  const target = given.target, find = (selector) => document.querySelector(`${target} ${selector}`)?.firstChild;
  const cells = [...document.querySelectorAll(`${target} .gallery-item`)];
  cells.forEach((cell, i) => {
    const text = cell.querySelector('.caption-label')?.firstChild, opened = cell.querySelector('.selected');
    for (const node of [text, opened && find('.caption')])
      if (node && i in captions && node.data !== captions[i]) node.data = captions[i];
  });
}
