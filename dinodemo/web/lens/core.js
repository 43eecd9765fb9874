// The lens: cosine of the patch under the pointer to every patch of every photo. Knows nothing of Gradio, so that it
// also runs in a page of its own. createLens(root) -> {load(value), state(), ...}; root holds lens.html.
function createLens(root) {
  const MAPS = /*MAPS*/{}, MOST_PINS = 32;
  const told = (text, ...values) => values.reduce((made, value) => made.replace('{}', value), window.dinodemoText?.(text) ?? text);
  const $ = (selector) => root.querySelector(selector);
  const board = $('.lens-board'), readout = $('.lens-readout'), spoken = $('.lens-spoken'), hint = $('.lens-hint');
  const control = {map: $('.lens-map'), opacity: $('.lens-opacity'), cut: $('.lens-cut'), mask: $('.lens-mask'),
                   smooth: $('.lens-smooth'), sign: $('.lens-sign')};
  let photos = [], width = 0, pins = [], pointer = null, wanted = 0, speaking = 0;
  const frames = [];  // milliseconds each took

  function bytes(text) {
    const raw = atob(text), made = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) made[i] = raw.charCodeAt(i);
    return new Int8Array(made.buffer);
  }

  function lut(name) {
    if (typeof MAPS[name] === 'string') MAPS[name] = new Uint8Array(bytes(MAPS[name]).buffer);
    return MAPS[name];
  }

  function element(kind, name, parent) {
    const made = document.createElement(kind);
    made.className = name;
    parent.append(made);
    return made;
  }

  function load(value) {
    width = value.width || 0;
    pins = [];
    pointer = null;
    board.replaceChildren();
    photos = (value.photos || []).map(build);
    hint.hidden = photos.length > 0;
    root.classList.toggle('lens-empty', !photos.length);
    board.dataset.count = photos.length;
    draw();
  }

  function build(given, index) {
    const [h, w] = given.grid, tokens = bytes(given.tokens), inverse = new Float32Array(h * w);
    for (let p = 0; p < h * w; p++) {
      let sum = 0;
      for (let i = p * width; i < (p + 1) * width; i++) sum += tokens[i] * tokens[i];
      inverse[p] = sum ? 1 / Math.sqrt(sum) : 0;
    }
    const figure = element('figure', 'lens-photo', board), stage = element('div', 'lens-stage', figure);
    const image = element('img', '', stage), heat = element('canvas', 'lens-heat', stage);
    image.src = given.picture;
    image.alt = '';
    image.draggable = false;
    stage.style.aspectRatio = `${given.size[1]} / ${given.size[0]}`;
    figure.style.setProperty('--shape', given.size[1] / given.size[0]);
    heat.width = w;
    heat.height = h;
    const photo = {name: given.name, h, w, tokens, inverse, stage, heat, values: new Float32Array(h * w),
                   pen: heat.getContext('2d'), pixels: new ImageData(w, h), marks: element('div', 'lens-marks', stage)};
    element('figcaption', '', figure).textContent = given.name;
    stage.tabIndex = 0;
    stage.setAttribute('role', 'application');
    stage.setAttribute('aria-label', told('{}, {} by {} patches. Arrows move, Enter pins what is alike, minus what is not.', given.name, w, h));
    listen(photo, index);
    return photo;
  }

  // -- arithmetic -------------------------------------------------------------------------------------------------
  function cosines(from, patch, photo, out) {
    const a = from.tokens, b = photo.tokens, start = patch * width, scale = from.inverse[patch];
    const query = a.subarray(start, start + width), even = width - width % 4;
    for (let p = 0, at = 0; p < photo.inverse.length; p++, at += width) {
      let s = 0, t = 0, u = 0, v = 0, i = 0;
      for (; i < even; i += 4) {
        s = (s + Math.imul(query[i], b[at + i])) | 0;  // whole numbers throughout: twice as fast
        t = (t + Math.imul(query[i + 1], b[at + i + 1])) | 0;
        u = (u + Math.imul(query[i + 2], b[at + i + 2])) | 0;
        v = (v + Math.imul(query[i + 3], b[at + i + 3])) | 0;
      }
      for (; i < width; i++) s = (s + Math.imul(query[i], b[at + i])) | 0;
      out[p] = (s + t + u + v) * scale * photo.inverse[p];
    }
  }

  // the best of the pins that are alike, minus the best of those that are not
  function pinned(photo) {
    const like = new Float32Array(photo.inverse.length).fill(-1), unlike = new Float32Array(like), one = new Float32Array(like);
    const signs = new Set(pins.map((pin) => pin.sign));
    for (const pin of pins) {
      cosines(photos[pin.photo], pin.patch, photo, one);
      const best = pin.sign > 0 ? like : unlike;
      for (let p = 0; p < one.length; p++) if (one[p] > best[p]) best[p] = one[p];
    }
    for (let p = 0; p < one.length; p++)
      photo.values[p] = (signs.has(1) ? like[p] : 0) - (signs.has(-1) ? unlike[p] : 0);
  }

  function compute() {
    if (pins.length) return photos.forEach(pinned);
    for (const photo of photos) {
      if (pointer) cosines(photos[pointer.photo], pointer.patch, photo, photo.values);
      else photo.values.fill(0);
    }
  }

  function bestOf(photo, far) {  // the highest value, at least three patches from `far`
    let best = -1;
    for (let p = 0; p < photo.values.length; p++) {
      if (best >= 0 && photo.values[p] <= photo.values[best]) continue;
      if (far >= 0) {
        const rows = (p / photo.w | 0) - (far / photo.w | 0), columns = p % photo.w - far % photo.w;
        if (rows * rows + columns * columns < 9) continue;
      }
      best = p;
    }
    return best;
  }

  // -- drawing ----------------------------------------------------------------------------------------------------
  function draw() {
    const started = performance.now();
    compute();
    let low = Infinity, high = -Infinity;
    for (const photo of photos) for (const value of photo.values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const shown = pins.length || pointer, colours = lut(control.map.value), spread = 255 / Math.max(high - low, 1e-6);
    for (const photo of photos) {
      paint(photo, shown, colours, low, spread);
      mark(photo);
    }
    describe();
    frames.push(performance.now() - started);
    if (frames.length > 1000) frames.shift();
  }

  function paint(photo, shown, colours, low, spread) {
    const out = photo.pixels.data, cut = +control.cut.value, mask = control.mask.checked, alpha = 255 * control.opacity.value;
    for (let p = 0, q = 0; p < photo.values.length; p++, q += 4) {
      const value = photo.values[p], level = 3 * Math.round((value - low) * spread);
      const inside = !mask || value >= cut;
      out[q] = mask ? 255 : colours[level];
      out[q + 1] = mask ? 64 : colours[level + 1];
      out[q + 2] = mask ? 32 : colours[level + 2];
      out[q + 3] = shown && inside ? alpha : 0;
    }
    photo.pen.putImageData(photo.pixels, 0, 0);
    photo.heat.style.imageRendering = control.smooth.checked && !mask ? 'auto' : 'pixelated';
  }

  function place(photo, patch, name, text) {
    const made = element('span', `lens-mark ${name}`, photo.marks);
    made.style.left = `${100 * (patch % photo.w) / photo.w}%`;
    made.style.top = `${100 * (patch / photo.w | 0) / photo.h}%`;
    made.style.width = `${100 / photo.w}%`;
    made.style.height = `${100 / photo.h}%`;
    made.textContent = text;
  }

  function mark(photo) {
    photo.marks.replaceChildren();
    const index = photos.indexOf(photo);
    pins.filter((pin) => pin.photo === index).forEach((pin) => place(photo, pin.patch, pin.sign > 0 ? 'lens-like' : 'lens-unlike', pin.sign > 0 ? '+' : '\u2212'));
    if (!pointer) return;
    if (pointer.photo === index) return place(photo, pointer.patch, 'lens-here', '');
    if (pins.length) return;
    const best = bestOf(photo, -1), second = bestOf(photo, best);
    if (second >= 0) place(photo, second, 'lens-second', '2');
    place(photo, best, 'lens-best', '1');
  }

  function describe() {
    if (!pointer) {
      readout.textContent = photos.length ? told('Move over a photo: every patch is coloured by how much it resembles the one under the pointer.') : '';
      return;
    }
    const photo = photos[pointer.photo], row = pointer.patch / photo.w | 0, column = pointer.patch % photo.w;
    const here = told('row {}, column {}', row + 1, column + 1);
    let text = here;
    if (pins.length) text += told(': {} to the pins', photo.values[pointer.patch].toFixed(2));
    else {
      const others = photos.filter((other) => other !== photo).map((other) => {
        const best = bestOf(other, -1), second = bestOf(other, best);
        return `${other.name} ${other.values[best].toFixed(2)}` + (second >= 0 ? told(' (next {})', other.values[second].toFixed(2)) : '');
      });
      if (others.length) text += told('. Best match: {}', others.join(', '));
    }
    readout.textContent = text;
    clearTimeout(speaking);  // a screen reader is told where the pointer rests
    speaking = setTimeout(() => { spoken.textContent = text; }, 600);
  }

  // -- pointer, touch, keyboard -----------------------------------------------------------------------------------
  function request() {
    if (!wanted) wanted = requestAnimationFrame(() => { wanted = 0; draw(); });
  }

  function move(photo, patch) {
    if (pointer && pointer.photo === photo && pointer.patch === patch) return;
    pointer = {photo, patch};
    request();
  }

  function under(photo, event) {
    const box = photo.stage.getBoundingClientRect();
    const part = (at, start, size, count) => Math.min(Math.max(Math.floor((at - start) / size * count), 0), count - 1);
    return part(event.clientY, box.top, box.height, photo.h) * photo.w + part(event.clientX, box.left, box.width, photo.w);
  }

  function pin(photo, patch, sign) {
    const before = pins.findIndex((one) => one.photo === photo && one.patch === patch);
    if (before >= 0) pins.splice(before, 1);
    else if (pins.length < MOST_PINS) pins.push({photo, patch, sign});
    pointer = {photo, patch};
    request();
  }

  function signOf(event) { return event.shiftKey || control.sign.getAttribute('aria-pressed') === 'true' ? -1 : 1; }

  function listen(photo, index) {
    let pressed = null;
    photo.stage.addEventListener('pointermove', (event) => move(index, under(photo, event)));
    photo.stage.addEventListener('pointerdown', (event) => {
      pressed = [event.clientX, event.clientY];
      move(index, under(photo, event));
    });
    photo.stage.addEventListener('pointerup', (event) => {  // a drag looks, a tap or click pins
      if (pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 6 && !event.button)
        pin(index, under(photo, event), signOf(event));
      pressed = null;
    });
    photo.stage.addEventListener('pointerleave', () => { if (document.activeElement !== photo.stage) { pointer = null; request(); } });
    photo.stage.addEventListener('focus', () => {
      if (!pointer || pointer.photo !== index) move(index, (photo.h / 2 | 0) * photo.w + (photo.w / 2 | 0));
    });
    photo.stage.addEventListener('keydown', (event) => key(event, photo, index));
  }

  function key(event, photo, index) {
    const patch = pointer && pointer.photo === index ? pointer.patch : 0, row = patch / photo.w | 0, column = patch % photo.w;
    const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (steps) {
      const next = [Math.min(Math.max(row + steps[0], 0), photo.h - 1), Math.min(Math.max(column + steps[1], 0), photo.w - 1)];
      move(index, next[0] * photo.w + next[1]);
    } else if (event.key === 'Enter' || event.key === ' ') pin(index, patch, signOf(event));
    else if (event.key === '-') pin(index, patch, -1);
    else if (event.key === 'Escape') { pins = []; request(); } else return;
    event.preventDefault();
  }

  control.sign.addEventListener('click', () => {
    const unlike = control.sign.getAttribute('aria-pressed') !== 'true';
    control.sign.setAttribute('aria-pressed', unlike);
  });
  $('.lens-undo').addEventListener('click', () => { pins.pop(); request(); });
  $('.lens-clear').addEventListener('click', () => { pins = []; request(); });
  for (const one of [control.map, control.opacity, control.cut, control.mask, control.smooth]) one.addEventListener('input', request);

  return {
    load,
    frames,
    look(photo, row, column) { pointer = {photo, patch: row * photos[photo].w + column}; draw(); return photos.map((p) => Array.from(p.values)); },
    state() {
      return {pins: pins.map((p) => ({photo: p.photo, row: p.patch / photos[p.photo].w | 0, column: p.patch % photos[p.photo].w, sign: p.sign})),
              threshold: +control.cut.value, pointer: pointer && {...pointer}};
    },
  };
}
