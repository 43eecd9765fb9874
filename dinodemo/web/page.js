() => {
  // Gradio's sliders report their release to the mouse only; this gives the keyboard the same
  let timer;
  document.addEventListener('keyup', (event) => {
    if (!event.target.matches('input[type=range]')) return;
    clearTimeout(timer);
    timer = setTimeout(() => event.target.dispatchEvent(new PointerEvent('pointerup', {bubbles: true})), 500);
  });

  // Gradio's dropdowns let go of the focus when an option is taken; whoever uses the keyboard would begin at the top again
  document.addEventListener('focusout', (event) => {
    if (event.target.getAttribute?.('role') !== 'combobox' || event.relatedTarget) return;
    const block = event.target.closest('.block');
    setTimeout(() => {
      if (!block || document.activeElement !== document.body) return;
      block.tabIndex = -1;
      block.focus({preventScroll: true});
    });
  });

  const banner = document.createElement('div');
  banner.id = 'page-banner';
  banner.setAttribute('role', 'alert');
  banner.hidden = true;
  document.body.append(banner);
  let hiding;
  function tell(text, seconds) {
    clearTimeout(hiding);
    banner.textContent = text;
    banner.hidden = !text;
    if (seconds) hiding = setTimeout(() => { banner.hidden = true; }, 1000 * seconds);
  }

  // a server that is gone is noticed before somebody waits for it
  const GONE = 'The server does not answer. What is on the page stays; it goes on once the server is back.';
  let missed = 0;
  setInterval(async () => {
    if (document.hidden) return;
    let here = false;
    try { here = (await fetch('healthz', {signal: AbortSignal.timeout(8000)})).ok; } catch {}
    if (here && missed > 1) tell('The server is back. Reload the page if something does not answer.', 8);
    missed = here ? 0 : missed + 1;
    if (missed === 2) tell(GONE);
  }, 10000);

  // Gradio ignores files of other kinds without a word
  function refuse(event, files) {
    const field = event.target.closest?.('.photo-input');
    const other = field && [...(files || [])].find((file) => !/^image\//.test(file.type) && !/\.(hei[cf]|avif|jp2|tiff?)$/i.test(file.name));
    if (other) tell(`${other.name} is not a picture. Give a JPEG, PNG, WebP, GIF, HEIC, AVIF, TIFF or BMP.`, 8);
  }
  document.addEventListener('drop', (event) => refuse(event, event.dataTransfer?.files), true);
  document.addEventListener('change', (event) => { if (event.target.type === 'file') refuse(event, event.target.files); }, true);
}
