"""What the page needs to know of a run's settings: which are chosen, what they mean; brings no torch of its own."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..train.config import FinetuneConfig, explanations, parse_set


def choose_settings(n_images: int, backbone: str, device: str, explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting that a run of n_images photos would have; raises ValueError that names a wrong one."""
    return dict(vars(FinetuneConfig.for_dataset(n_images, backbone, device, **explicit)))


def parse_settings(lines: Iterable[str]) -> dict[str, Any]:
    """Turn "name=value" lines into settings; raises ValueError that names a wrong one."""
    return parse_set(lines)


def explain_settings() -> dict[str, str]:
    """Return what each setting means, in the order of the configuration."""
    return explanations()
