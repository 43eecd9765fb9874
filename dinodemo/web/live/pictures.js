// Pictures that the server drew: once their values are here, controls redraw them without asking. This is what heat.js
// and colours.js share; they bring NAMES (the controls, in order), arrived(), possible(), draw() and told().
const SOFTWARE = {willReadFrequently: true};  // pixels come from here, not from a GPU
const MOST_KEPT = 40;  // scaled photos; a window that is being resized asks for many sizes
let given = {maps: []}, look = null, photos = [], wanted = 0;
let canvases = [], scaled = new Map();

function bytes(text) { return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)); }

function taps(count, size, smooth) {  // of each pixel of a line: four places and their weights, as OpenCV's
  const places = new Int32Array(4 * size), weights = new Float32Array(4 * size), A = -0.75;
  for (let x = 0; x < size; x++) {
    if (!smooth) {
      places[4 * x] = Math.min(Math.floor(x * count / size), count - 1);
      weights[4 * x] = 1;
      continue;
    }
    const at = (x + 0.5) * count / size - 0.5, first = Math.floor(at), t = at - first, u = 1 - t;
    const far = (d) => ((A * d - 5 * A) * d + 8 * A) * d - 4 * A, near = (d) => ((A + 2) * d - (A + 3)) * d * d + 1;
    [far(t + 1), near(t), near(u), far(u + 1)].forEach((weight, i) => {
      places[4 * x + i] = Math.min(Math.max(first - 1 + i, 0), count - 1);
      weights[4 * x + i] = weight;
    });
  }
  return [places, weights];
}

function photoAt(index, height, width) {  // a photo at a picture's size; kept, because no control changes it
  const key = [index, height, width].join();
  if (!scaled.has(key)) {
    if (scaled.size >= MOST_KEPT) scaled.clear();
    const canvas = new OffscreenCanvas(width, height), pen = canvas.getContext('2d', SOFTWARE);
    pen.imageSmoothingQuality = 'high';
    pen.drawImage(photos[index], 0, 0, width, height);
    scaled.set(key, canvas);
  }
  return scaled.get(key);
}

// how many of a picture's own pixels the screen has for one, at most 1: more would be drawn for nobody; 0 if hidden
function shown(image) {
  const fits = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
  return Math.min(1, fits * devicePixelRatio);
}

function over(image, height, width) {  // the canvas that lies on a picture; clicks go through it
  let canvas = image.nextElementSibling;
  if (!canvas?.classList.contains('live-picture')) {
    canvas = document.createElement('canvas');
    canvas.className = 'live-picture';
    canvas.setAttribute('aria-hidden', true);
    image.after(canvas);
    if (getComputedStyle(image.parentElement).position === 'static') image.parentElement.style.position = 'relative';
    const style = getComputedStyle(image);
    const place = () => Object.assign(canvas.style, {
      left: `${image.offsetLeft}px`, top: `${image.offsetTop}px`, width: `${image.offsetWidth}px`, height: `${image.offsetHeight}px`,
      position: 'absolute', pointerEvents: 'none', margin: 0, objectFit: style.objectFit, objectPosition: style.objectPosition,
      borderRadius: style.borderRadius,
    });
    const observer = new ResizeObserver(() => { place(); request(); });
    observer.observe(image);
    place();
    canvases.push({canvas, observer});
  }
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  return canvas;
}

function request() {
  if (!wanted) wanted = requestAnimationFrame(() => { wanted = 0; draw(); });
}

// -- what comes from the page -------------------------------------------------------------------------------------
async function show() {
  const value = props.value || {maps: []};
  if (value.version === given.version) return;
  given = {...value};
  for (const {canvas, observer} of canvases) { canvas.remove(); observer.disconnect(); }
  [canvases, photos] = [[], []];
  scaled.clear();
  arrived();
  const made = (given.photos || []).map((src) => Object.assign(new Image(), {src}));
  await Promise.all(made.map((photo) => photo.decode()));
  if (value.version !== given.version) return;
  photos = made;
  look = look || given.look;
  request();
}

element.live = {
  draw,
  photoAt,
  move(second, ...values) {  // returns what controls and texts become; nothing where the server says it
    look = Object.fromEntries(NAMES.map((name, i) => [name, values[i]]));
    if (given.server || (given.maps.length && !possible())) {
      trigger('submit');
      return null;
    }
    request();
    if (second && given.maps.length) trigger('input');  // the picture of the backbone that is compared with
    return given.maps.length ? told() : null;
  },
};
document.addEventListener('load', (event) => {  // the server's pictures come, or come anew, after the values
  if (given.maps.some((map) => event.target.matches?.(`${map.target} img`))) request();
}, true);
watch('value', show);
show();
