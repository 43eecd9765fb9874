// value: {outline: PNG data URL | null, version}. Drawn on the painter's own outline canvas.
let version = null;
function show() {
  const value = props.value || {};
  if (value.version === version) return;
  version = value.version;
  const canvas = document.querySelector('#PAINTER canvas.outline');
  if (!canvas) return;
  const pen = canvas.getContext('2d');
  if (!value.outline) { pen.clearRect(0, 0, canvas.width, canvas.height); return; }
  const image = new Image();
  image.onload = () => {
    if (value.version !== version) return;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  };
  image.src = value.outline;
}
watch('value', show);
show();
