"""preprocessor_config.json, as model folders that are made here carry it."""

from collections.abc import Sequence
from typing import Any


def preprocessor_config(mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Return the content of preprocessor_config.json: DINOv2's preprocessing, with a normalisation.

    Args:
        mean: of red, green and blue, on a scale from 0 to 1.
        std: their deviations, above 0.
    """
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "do_convert_rgb": True,
    }
