"""The numbers behind the tab's pictures, for a browser that redraws them itself. No Gradio."""

import base64
import secrets
from dataclasses import asdict

import numpy as np

from ...io.images import DISPLAY_SIDE, scale_to
from ...io.render import jpeg_url
from .draw import Look, View
from .maps import attention_of, cosine_to_patch, norms_of

MOST_BYTES = 8_000_000  # of all maps together; beyond, the server draws


def live_value(view: View | None, look: Look, most_bytes: int = MOST_BYTES) -> dict:
    """Return what `web/live/heat.js` needs to draw the tab's pictures of one layer with any other look.

    Args:
        view: The photo and its features; None empties the value.
        look: The controls as they are; its layer is the one that is sent.
        most_bytes: Of all maps together.

    Returns:
        `maps` holds each picture's values (n, h, w) float32 as text; it is empty, and `server` true, where they are
        too many. `version` is never given twice, not even after a restart of the server: a page that was left open
        would take new values for those that it has.
    """
    value: dict = {"version": secrets.token_hex(8), "maps": [], "server": False}
    if view is None:
        return value
    f, layer = view.features, look.layer_index(view.features)
    rows, chosen = attention_of(f)[layer], {"chosen": True, "patch": view.patch}
    maps = [
        _map("#attention-overlay", rows, **chosen),
        _map("#attention-heads", rows, each=True),
        _map("#attention-norms", norms_of(f)[None], bare=True),
    ]
    if view.patch is not None and view.patch_rows is not None:
        maps.append(_map("#point-attention", view.patch_rows[layer], **chosen))
        maps.append(_map("#point-cosine", cosine_to_patch(f, view.patch)[None], patch=view.patch))
    if sum(len(one["rows"]) for one in maps) > most_bytes:
        return {**value, "server": True}
    photo = jpeg_url(scale_to(view.photo.rgb, DISPLAY_SIDE))
    settings = {**asdict(look), "map": look.colour_map}
    return {**value, "maps": maps, "photos": [photo], "look": settings}


def _map(target: str, values: np.ndarray, **more) -> dict:
    """Describe one picture.

    more: `chosen`, head and mass apply; `each`, one picture a head; `bare`, without the photo; `patch`, outlined.
    """
    text = base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
    return {"target": target, "grid": list(values.shape), "rows": text, **more}
