// value: {photo: data URL | null, mask: PNG data URL | null, box: [x0, y0, x1, y1] in shares | null,
//         painted: true once somebody drew, version: number set by the server}.
// Red pixels of the mask mean "this", blue ones "exclude"; see painter.py, which reads them.
window.dinodemoTranslate?.(element);
const THIS = '#ff2020', NOT_THIS = '#2060ff', MOST_UNDO = 30, DOT = 10, FILL_BOX = false;
const photo = element.querySelector('.photo'), mask = element.querySelector('.mask');
const outline = element.querySelector('.outline');
const stage = element.querySelector('.stage'), rubber = element.querySelector('.rubber');
const hint = element.querySelector('.hint'), view = element.querySelector('.view');
const size = element.querySelector('.size'), zoom = element.querySelector('.zoom');
const pen = mask.getContext('2d', {willReadFrequently: true});
let version = null, tool = 'brush', undo = [], stroke = null, box = null;

function picture(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = url;
  });
}

async function load() {
  const value = props.value || {};
  if (value.version === version) return;
  version = value.version;
  undo = [];
  keepBox(null);
  hint.hidden = !!value.photo;
  stage.hidden = !value.photo;
  if (!value.photo) return;
  const image = await picture(value.photo);
  photo.width = mask.width = outline.width = image.naturalWidth;
  photo.height = mask.height = outline.height = image.naturalHeight;
  stage.style.setProperty('--shape', photo.width / photo.height);
  photo.getContext('2d').drawImage(image, 0, 0);
  if (value.mask) pen.drawImage(await picture(value.mask), 0, 0, mask.width, mask.height);
}

function publish() {
  props.value = {...(props.value || {}), mask: mask.toDataURL('image/png'), box, painted: true};
  trigger('change');
}

function remember() {
  undo.push([pen.getImageData(0, 0, mask.width, mask.height), box]);
  if (undo.length > MOST_UNDO) undo.shift();
}

function position(event) {
  const box = mask.getBoundingClientRect();
  return [(event.clientX - box.left) * mask.width / box.width, (event.clientY - box.top) * mask.height / box.height];
}

function line(from, to) {
  pen.globalCompositeOperation = tool === 'eraser' ? 'destination-out' : 'source-over';
  pen.strokeStyle = tool === 'negative' ? NOT_THIS : THIS;
  pen.lineCap = 'round';
  pen.lineWidth = tool === 'point' ? DOT : +size.value;
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(to[0] + 0.01, to[1]);
  pen.stroke();
}

function showBox(from, to) {
  const scale = 100 / mask.width, down = 100 / mask.height;
  rubber.hidden = false;
  rubber.style.left = Math.min(from[0], to[0]) * scale + '%';
  rubber.style.top = Math.min(from[1], to[1]) * down + '%';
  rubber.style.width = Math.abs(to[0] - from[0]) * scale + '%';
  rubber.style.height = Math.abs(to[1] - from[1]) * down + '%';
}

function keepBox(shares) {
  box = shares;
  rubber.hidden = !shares;
  if (shares) showBox([shares[0] * mask.width, shares[1] * mask.height], [shares[2] * mask.width, shares[3] * mask.height]);
}

function shareOf([x, y]) {
  return [Math.min(Math.max(x / mask.width, 0), 1), Math.min(Math.max(y / mask.height, 0), 1)];
}

mask.addEventListener('pointerdown', (event) => {
  if (event.button) return;
  remember();
  mask.setPointerCapture(event.pointerId);
  stroke = {from: position(event), last: position(event)};
  if (tool !== 'box') line(stroke.last, stroke.last);
});
mask.addEventListener('pointermove', (event) => {
  if (!stroke) return;
  const here = position(event);
  if (tool === 'box') showBox(stroke.from, here); else if (tool !== 'point') line(stroke.last, here);
  stroke.last = here;
});
function finish() {
  if (!stroke) return;
  if (tool === 'box') {
    const [x, y] = stroke.from, [u, v] = stroke.last;
    if (FILL_BOX) {
      pen.globalCompositeOperation = 'source-over';
      pen.fillStyle = THIS;
      pen.fillRect(Math.min(x, u), Math.min(y, v), Math.abs(u - x), Math.abs(v - y));
      rubber.hidden = true;
    } else {
      const [a, b] = shareOf([Math.min(x, u), Math.min(y, v)]), [c, d] = shareOf([Math.max(x, u), Math.max(y, v)]);
      keepBox(c - a > 0.005 && d - b > 0.005 ? [a, b, c, d] : null);
    }
  }
  stroke = null;
  publish();
}
mask.addEventListener('pointerup', finish);
mask.addEventListener('pointercancel', finish);

function choose(name) {
  tool = name;
  element.querySelectorAll('[data-tool]').forEach((b) => b.setAttribute('aria-pressed', b.dataset.tool === name));
}
const actions = {
  undo() { const before = undo.pop(); if (before) { pen.putImageData(before[0], 0, 0); keepBox(before[1]); publish(); } },
  clear() { remember(); pen.clearRect(0, 0, mask.width, mask.height); keepBox(null); publish(); },
  save() { const a = document.createElement('a'); a.href = mask.toDataURL('image/png'); a.download = 'mask.png'; a.click(); },
};
element.addEventListener('click', (event) => {
  const {tool: name, action} = event.target.dataset || {};
  if (name) choose(name);
  if (action) actions[action]();
});
zoom.addEventListener('input', () => {
  const middle = [(view.scrollLeft + view.clientWidth / 2) / stage.clientWidth,
                  (view.scrollTop + view.clientHeight / 2) / stage.clientHeight];
  stage.style.setProperty('--zoom', zoom.value);
  view.scrollTo(middle[0] * stage.clientWidth - view.clientWidth / 2, middle[1] * stage.clientHeight - view.clientHeight / 2);
});
element.addEventListener('keydown', (event) => {
  if (event.target.matches('input[type=text], textarea')) return;
  const tools = {b: 'brush', c: 'point', x: 'negative', n: 'negative', e: 'eraser', r: 'box'};
  const key = event.key.toLowerCase(), modified = event.ctrlKey || event.metaKey;
  if (key === 'z' && !event.altKey) { event.preventDefault(); actions.undo(); }
  else if (modified) return;
  else if (key === '[' || key === ']') size.value = Math.round(size.value * (key === ']' ? 1.25 : 0.8) + (key === ']' ? 1 : -1));
  else if (tools[key]) choose(tools[key]);
});
mask.addEventListener('pointerenter', () => view.focus({preventScroll: true}));
watch('value', load);
stage.hidden = true;
load();
