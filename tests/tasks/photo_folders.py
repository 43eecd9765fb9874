"""Photos as files, in class folders."""

import io

from PIL import Image

CLASSES = {"cat": 3, "dog": 3, "it's a bird": 2}
SIDE = 70


def encode(picture, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()
