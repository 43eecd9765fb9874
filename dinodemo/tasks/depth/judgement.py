"""What is said of a photo's depth: metres where it is of the kind that a probe was trained on, else near and far."""

from dataclasses import dataclass

import numpy as np

OUTSIDE = "This picture is unlike those that the probe was trained on: no metres, and near and far are a guess."
ASKED = "This picture is unlike those that the probe was trained on: its metres are a guess."
UNKNOWN = "Whether the probe knows pictures like this one is not recorded in it; take its metres with care."


@dataclass(frozen=True, eq=False)
class DepthEstimate:
    """What a probe says of a photo, and whether the photo is of the kind that it was trained on.

    Args:
        depth: (H, W) float32, larger is farther. With unit "metres" in metres, else in (0, 1] of the farthest; outside
            of the probe's world by its map of near and far (`nearness.Nearness`), where it has one.
        metres: (H, W) float32 as the head gives it, to be believed only inside of the probe's world.
        unit: "metres", or "relative" for probes without a unit and outside of the probe's world.
        inside: whether the photo is like the training pictures; None where the probe does not know.
        distance: how unlike they are, as a multiple of the largest distance inside; None where not known.
        message: a sentence for the reader, "" where there is nothing to say.
    """

    depth: np.ndarray
    metres: np.ndarray
    unit: str
    inside: bool | None
    distance: float | None
    message: str = ""


def judge(
    depth: np.ndarray, unit: str, distance: float | None, metres: bool, order: np.ndarray | None = None
) -> DepthEstimate:
    """Decide on the unit of a prediction.

    Args:
        depth: (H, W) in the probe's unit.
        unit: The probe's, "metres" or "relative".
        distance: How unlike the photo is to the training pictures; more than 1 is outside, None where not known.
        metres: Give metres outside too.
        order: (H, W) of no unit, larger is farther, to show outside; None shows `depth` there.

    Returns:
        The estimate, with what the reader should know.
    """
    inside = None if distance is None else distance <= 1
    if unit != "metres":
        return DepthEstimate(depth, depth, "relative", inside, distance)
    if inside is False and not metres:
        shown = depth if order is None else order
        return DepthEstimate(shown / shown.max(), depth, "relative", inside, distance, OUTSIDE)
    message = UNKNOWN if inside is None else ASKED if not inside else ""
    return DepthEstimate(depth, depth, "metres", inside, distance, message)
