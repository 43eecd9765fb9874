// value: {files: [{path, name}], left_out: [names]}; name keeps the sub-folders. folder_picker.py checks it.
window.dinodemoTranslate?.(element);
const told = (text, ...values) => values.reduce((made, value) => made.replace('{}', value), window.dinodemoText?.(text) ?? text);
const PHOTO = /[.](jpe?g|jpe|jfif|mpo|png|webp|gif|bmp|tiff?|heic|heif|avif|jp2|zip)$/i, AT_ONCE = 4;
const drop = element.querySelector('.drop'), bar = element.querySelector('progress');
const message = element.querySelector('.message');

async function send(all) {
  const shown = all.filter(({name}) => !name.split('/').some((part) => part.startsWith('.')));
  const wanted = shown.filter(({name, file}) => PHOTO.test(name) && file.size);
  const left_out = shown.filter((one) => !wanted.includes(one)).map(({name}) => name);
  const files = [];
  let next = 0, done = 0;
  bar.hidden = false;
  bar.max = Math.max(wanted.length, 1);
  bar.value = 0;
  async function worker() {
    while (next < wanted.length) {
      const {file, name} = wanted[next++];
      try { files.push({path: (await upload(file)).path, name}); } catch (error) { left_out.push(name); }
      bar.value = ++done;
      message.textContent = told('Uploading: {} of {}', done, wanted.length);
    }
  }
  await Promise.all(Array.from({length: AT_ONCE}, worker));
  bar.hidden = true;
  message.textContent = told('{} uploaded', files.length) + (left_out.length ? told(', {} left out', left_out.length) : '');
  props.value = {files, left_out};
  trigger('submit');
}

for (const input of element.querySelectorAll('input')) {
  input.addEventListener('change', async () => {
    const chosen = [...input.files].map((file) => ({file, name: file.webkitRelativePath || file.name}));
    input.value = '';
    if (chosen.length) await send(chosen);
  });
}

async function* walk(entry, path) {
  if (entry.isFile) {
    yield {file: await new Promise((resolve, reject) => entry.file(resolve, reject)), name: path + entry.name};
    return;
  }
  const reader = entry.createReader();
  for (;;) {  // a reader gives a hundred entries at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some) yield* walk(one, path + entry.name + '/');
  }
}

drop.addEventListener('dragover', (event) => { event.preventDefault(); drop.classList.add('over'); });
drop.addEventListener('dragleave', () => drop.classList.remove('over'));
drop.addEventListener('drop', async (event) => {
  event.preventDefault();
  drop.classList.remove('over');
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const found = [];
  for (const entry of entries) for await (const one of walk(entry, '')) found.push(one);
  if (found.length) await send(found);
});
