// value: what tasks/lens/packing.py's lens_value returns; web/lens_view.py's STATE asks for pins and threshold
let version = null;
window.dinodemoTranslate?.(element);
const lens = createLens(element);
element.lens = lens;
function show() {
  const value = props.value || {};
  if (value.version === version) return;
  version = value.version;
  lens.load(value);
}
watch('value', show);
show();
