"""What a browser keeps for its person: settings, and the secret key that names their indexes and runs.

Read and written by the page itself: Gradio's BrowserState may not have read its storage yet when the page's load
events run, and would then hand over nothing. Where a browser keeps nothing for a page (a frame of another site), the
key lasts as long as the page.
"""

import json
from collections.abc import Sequence

import gradio as gr

from .events import QUIET, Options

UNQUEUED: Options = {**QUIET, "queue": False}
_KEY = """(() => {
  let key = window.dinodemoKey;
  try { key = key || localStorage.getItem('dinodemo-key'); } catch {}
  if (!/^[A-Za-z0-9_-]{32}$/.test(key || '')) {
    const bytes = crypto.getRandomValues(new Uint8Array(24));
    key = btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_');
    try { localStorage.setItem('dinodemo-key', key); } catch {}
  }
  return window.dinodemoKey = key;
})()"""
WITH_KEY = f"(_, ...rest) => [{_KEY}, ...rest]"  # js of a load event with two or more inputs whose first is the key
_RESTORE = """(...now) => {
  let kept = null;
  try { kept = JSON.parse(localStorage.getItem(%(name)s)); } catch {}
  kept = Array.isArray(kept) && kept.length === %(count)d ? kept : now.slice(0, %(count)d);
  return %(count)d === 1 ? kept[0] : kept;
}"""
_KEEP = "(...now) => { try { localStorage.setItem(%(name)s, JSON.stringify(now.slice(0, %(count)d))); } catch {} }"


def browser_key(page: gr.Blocks) -> gr.Textbox:
    """Make the hidden field of the person's key; load events read it by `js=WITH_KEY`, later ones as it stands."""
    key = gr.Textbox(visible="hidden", elem_id="browser-key")
    page.load(None, None, key, js=f"() => {_KEY}", **UNQUEUED)
    return key


def remember(page: gr.Blocks, name: str, components: Sequence) -> None:
    """Keep the components' values in the person's browser, and restore them when the page is opened again.

    Args:
        page: With the components.
        name: Under which they are kept.
        components: Whose values are kept.
    """
    kept = {"name": json.dumps(f"dinodemo-{name}"), "count": len(components)}
    page.load(None, list(components), list(components), js=_RESTORE % kept, **UNQUEUED)
    gr.on([c.change for c in components], None, list(components), None, js=_KEEP % kept, **UNQUEUED)
