// The drawer behind the "?": what the open tab shows, its formula, three experiments. Its texts came with the page.
(() => {
  const TEXTS = /*HELP*/{};
  const element = (kind, text, parent) => { const made = document.createElement(kind); made.textContent = text; parent.append(made); return made; };
  let drawer = null, opener = null;

  function texts() { return TEXTS[window.dinodemoLanguage]; }

  function tab() {
    const open = document.querySelector('[role=tab][aria-selected=true][id^=tab-]');
    return open ? {name: open.id.replace(/^tab-|-button$/g, ''), title: open.textContent.trim()} : null;
  }

  function fill() {
    const here = tab(), known = texts(), words = known.words, help = here && known[here.name];
    drawer.replaceChildren();
    const close = element('button', '×', drawer);
    close.setAttribute('aria-label', words.close);
    close.addEventListener('click', () => show(false));
    if (!help) return;
    element('h2', here.title, drawer).id = 'help-title';
    element('p', help.seen, drawer);
    element('h3', words.formula, drawer);
    element('p', help.formula, drawer).className = 'help-formula';
    element('h3', words.try, drawer);
    const list = element('ol', '', drawer);
    help.try.forEach((text) => element('li', text, list));
    element('h3', words.more, drawer);
    element('p', help.more, drawer);
  }

  function show(open) {
    drawer.hidden = !open;
    opener?.setAttribute('aria-expanded', open);
    if (open) { fill(); drawer.querySelector('button').focus(); } else opener?.focus();
  }

  function start() {
    drawer = document.createElement('aside');
    drawer.id = 'help-drawer';
    drawer.hidden = true;
    drawer.setAttribute('role', 'dialog');
    drawer.setAttribute('aria-labelledby', 'help-title');
    document.body.append(drawer);
    document.addEventListener('click', (event) => {
      const asked = event.target.closest?.('#help');
      if (asked) { opener = asked; show(drawer.hidden); } else if (event.target.closest?.('[role=tab]') && !drawer.hidden) setTimeout(fill, 50);
    });
    document.addEventListener('keydown', (event) => { if (event.key === 'Escape' && !drawer.hidden) show(false); });
    new MutationObserver(() => {  // Gradio has no way to name a button otherwise than by its text
      const button = document.querySelector('#help');
      const name = texts().words.open;
      if (button && button.getAttribute('aria-label') !== name) { button.setAttribute('aria-label', name); button.title = name; }
    }).observe(document.body, {childList: true, subtree: true});
  }
  if (document.body) start(); else document.addEventListener('DOMContentLoaded', start);
})();
