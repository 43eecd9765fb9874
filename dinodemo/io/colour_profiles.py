"""Colours to sRGB, as a picture's embedded ICC profile says what its numbers mean."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

CLOSE = 2  # levels by which a profile may differ from sRGB and still be taken for it: nothing is converted then
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # a profile's colour space, the mode that it reads
SOURCES = {  # the modes of pictures that a profile's mode can be read from
    "RGB": ("RGB", "RGBA", "RGBX", "P", "PA", "L", "LA", "1"),
    "L": ("L", "LA", "1"),
    "CMYK": ("CMYK",),
    "LAB": ("LAB",),
}
BROKEN = (ImageCms.PyCMSError, OSError, ValueError, TypeError)  # what LittleCMS raises on a bad profile

Convert = Callable[[Image.Image], Image.Image]


def to_srgb(image: Image.Image) -> Convert | None:
    """Return what turns a picture, or a part of it, into sRGB; None where its colours can stay as they are.

    Args:
        image: A picture. Its profile is `image.info["icc_profile"]`; L*a*b* pictures need none.

    Returns:
        A function from an image of the same mode to one of mode RGB, without its transparency. None without a profile,
        for one that means sRGB, one that does not fit the picture's mode, and a broken one: it is ignored.
    """
    try:
        source = _profile(image)
        if source is None:
            return None
        mode = MODES.get(source.profile.xcolor_space.strip(), "")
        if image.mode not in SOURCES.get(mode, ()):
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode in ("RGB", "L") and _changes_nothing(transform, mode):
            return None
    except BROKEN:
        return None
    return lambda part: transform.apply(part if part.mode == mode else part.convert(mode))


def _profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    content = image.info.get("icc_profile")
    if isinstance(content, bytes) and content:
        return ImageCms.ImageCmsProfile(io.BytesIO(content))
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")) if image.mode == "LAB" else None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Try the transform on colours of all kinds: most profiles are sRGB's under one of many names."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    if mode == "L":
        colours = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    probe = Image.fromarray(colours if mode == "RGB" else np.ascontiguousarray(colours[..., 0]))
    changed = np.asarray(transform.apply(probe)).astype(int)
    return bool(np.abs(changed - colours).max() <= CLOSE)
