"""How long the lens of a photo was, as its file says (EXIF): for any size and orientation the picture has now."""

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF_IFD = 0x8769
FOCAL_LENGTH, FOCAL_35MM, ZOOM = 0x920A, 0xA405, 0xA404
WIDTH, HEIGHT = 0xA002, 0xA003  # of the picture when it was taken
PLANE_X, PLANE_UNIT = 0xA20E, 0xA210
UNITS = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # mm of FocalPlaneResolutionUnit
DIAGONAL = math.hypot(36, 24)  # mm of 35 mm film, whose angle the equivalent focal length keeps (CIPA DCG-001)
SENSOR = (2.0, 70.0)  # mm wide: from the smallest phone's to medium format; others are mistakes
RANGE = (0.2, 30.0)  # of the focal length over the longer side: fields of view from 136 to 1.9 degrees
SAME_SHAPE = 0.01  # relative; sizes are rounded to whole pixels
BROKEN = (OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, AttributeError,
          RuntimeError, struct.error)  # fmt: skip


@dataclass(frozen=True)
class Focal:
    """What a file says of a photo's focal length.

    Attributes:
        share: The focal length in pixels over the picture's longer side, which neither turning nor resizing changes;
            None where the file's words cannot be used.
        words: The evidence, or why it cannot be used.
    """

    share: float | None
    words: str

    @property
    def fov(self) -> float | None:
        """Return the field of view along the longer side, in degrees."""
        return None if self.share is None else math.degrees(2 * math.atan(0.5 / self.share))


def read_focal(image: "Image", size: tuple[int, int]) -> Focal | None:
    """Return what a file's EXIF says of the focal length; None where it says nothing, or is damaged.

    Args:
        image: As Pillow opened it.
        size: (width, height) in pixels of the file's picture, turned or not.
    """
    try:
        exif = image.getexif().get_ifd(EXIF_IFD)
        numbers = {tag: _number(exif.get(tag)) for tag in (FOCAL_LENGTH, FOCAL_35MM, ZOOM, WIDTH, HEIGHT, PLANE_X)}
        unit = UNITS.get(exif.get(PLANE_UNIT, 2), 0.0)
    except BROKEN:
        return None
    if not numbers[FOCAL_35MM] and not (numbers[FOCAL_LENGTH] and numbers[PLANE_X]):
        return None  # a focal length alone says nothing without the sensor's size
    known = numbers[WIDTH] > 0 and numbers[HEIGHT] > 0
    taken = (numbers[WIDTH], numbers[HEIGHT]) if known else (float(size[0]), float(size[1]))
    longer, cut = _longer_side(taken, size)
    if not longer:
        text = f"the photo was cut after it was taken, from {taken[0]:.0f} × {taken[1]:.0f} pixels"
        return Focal(None, f"{text}: its focal length is not used")
    if numbers[FOCAL_35MM]:
        pixels = numbers[FOCAL_35MM] / DIAGONAL * math.hypot(*taken)
        words = f"{numbers[FOCAL_35MM]:g} mm (35 mm equivalent)"
    else:
        if not known or not unit or numbers[ZOOM] > 1:
            return None  # whose pixels the sensor's are, is not known
        width = taken[0] * unit / numbers[PLANE_X]
        pixels = numbers[FOCAL_LENGTH] * numbers[PLANE_X] / unit
        words = f"{numbers[FOCAL_LENGTH]:g} mm on a sensor {width:.3g} mm wide"
        if not SENSOR[0] <= width <= SENSOR[1]:
            return Focal(None, f"the photo says {words}, which cannot be: its focal length is not used")
    if not RANGE[0] <= pixels / longer <= RANGE[1]:
        return Focal(None, f"the photo says {words}, which cannot be: its focal length is not used")
    words += f", before it was cut from {taken[0]:.0f} × {taken[1]:.0f} pixels" if cut else ""
    return Focal(pixels / longer, f"focal length from the photo: {words}")


def _longer_side(taken: tuple[float, float], size: tuple[int, int]) -> tuple[float, bool]:
    """Return the picture's longer side in the pixels it was taken with, and whether it was cut; 0 where not known.

    A picture of the same shape was resized. One of another shape that kept a side was cut, and has its own pixels. Of
    all others nobody knows how large their pixels are.
    """
    if abs(math.log(max(taken) / min(taken) * min(size) / max(size))) <= SAME_SHAPE:
        return max(taken), False
    inside = max(size) <= max(taken) and min(size) <= min(taken)
    return (float(max(size)), True) if inside and set(size) & set(taken) else (0.0, True)


def _number(value: object) -> float:
    """Return a number of EXIF; 0 for anything that is none above 0."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except BROKEN:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
