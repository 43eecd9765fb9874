// value: {fields: [[name, chosen value, what it is]] from the server, edits: {name: text} from here}; see settings_list.py.
window.dinodemoTranslate?.(element);
const rows = element.querySelector('.rows'), search = element.querySelector('.search');
const inputs = {};
let edits = props.value?.edits || {};

function build(name, told) {
  const row = document.createElement('label'), title = document.createElement('b');
  const input = document.createElement('input'), help = document.createElement('span');
  row.className = 'row';
  title.textContent = name;
  help.textContent = told;
  input.setAttribute('aria-label', name);
  input.addEventListener('change', () => edit(name, input.value.trim()));
  input.addEventListener('blur', show);  // an answer leaves a field alone while somebody is in it
  row.append(title, input, help);
  rows.append(row);
  inputs[name] = input;
}

function edit(name, text) {
  const {[name]: before, ...others} = edits;
  edits = text ? {...others, [name]: text} : others;
  props.value = {...props.value, edits};
  trigger('input');
}

function show() {
  const {fields = [], edits: answered} = props.value || {};
  for (const [name, chosen, told] of fields) {
    if (!inputs[name]) build(name, told);
    const input = inputs[name];
    input.parentElement.classList.toggle('edited', name in edits);
    if (input !== document.activeElement) input.value = edits[name] ?? chosen;
  }
  // an answer to an earlier question must not take back what was typed since
  if (JSON.stringify(answered) !== JSON.stringify(edits)) props.value = {...props.value, edits};
}

search.addEventListener('input', () => {
  const wanted = search.value.trim().toLowerCase();
  for (const row of rows.children) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});

watch('value', show);
show();
