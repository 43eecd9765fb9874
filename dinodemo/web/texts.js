// Texts that our own components bring with them, in the page's language. English is the key, as everywhere.
(() => {
  const KOREAN = /*KOREAN*/{};
  let chosen = null;
  try { chosen = localStorage.getItem('dinodemo_language'); } catch {}
  window.dinodemoLanguage = (chosen || navigator.language || 'en').startsWith('ko') ? 'ko' : 'en';
  window.dinodemoText = (text) => (window.dinodemoLanguage === 'ko' && KOREAN[text]) || text;
  window.dinodemoTranslate = (root) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode, text = node.data.trim();
      if (text) node.data = node.data.replace(text, window.dinodemoText(text));
    }
    for (const name of ['title', 'aria-label', 'placeholder'])
      root.querySelectorAll(`[${name}]`).forEach((one) => one.setAttribute(name, window.dinodemoText(one.getAttribute(name))));
  };
})();
