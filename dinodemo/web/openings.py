"""What tabs show before anybody gave a photo: shipped examples, seen by the backbone that runs.

They are computed in the background once the backbone is loaded, one picture after the other, so that a visitor's own
request waits for one picture at most. What the network gave stays on disk, under the checksum of its weights.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from ..engine.kept import keeping
from ..io.images import Photo, load_photo

log = logging.getLogger(__name__)


class Openings:
    """Collect what the tabs open with, and compute it ahead.

    on: Whether tabs open with examples at all; without, nothing is computed before somebody asks.
    folder: Where what was computed is kept.
    """

    def __init__(self, on: bool = True, folder: Path | None = None):
        self.on = on
        self.folder = folder or user_cache_path("dinodemo") / "examples"
        self._jobs: list[Callable[[str], Any]] = []

    def add(self, job: Callable[[str], Any]) -> None:
        """Add what a tab will ask for: job(backbone) leaves it in the engine's cache."""
        self._jobs.append(job)

    def prepare(self, backbone: str) -> None:
        """Do all jobs, one after the other; one that fails is logged, and its tab computes when it is opened."""
        for job in self._jobs if self.on else ():
            with keeping(self.folder):
                try:
                    job(backbone)
                except (ValueError, RuntimeError, OSError) as error:
                    log.warning("an example cannot be prepared: %s", error)


def photos_to_show(
    latest: Photo | None, shown: Sequence[Photo], given: bool, opening: Sequence[str | Path]
) -> tuple[list[Photo] | None, bool]:
    """Return the photos that a tab of several photos takes when it is opened, and whether they are the example.

    Args:
        latest: the person's latest photo, whichever tab it came from.
        shown: photos that the tab shows.
        given: whether the person gave this tab photos; these stay.
        opening: paths of the example; empty for none.

    Returns:
        (photos, False or True); (None, False) when what is shown stays.
    """
    if given:
        return None, False
    if latest is not None:
        same = len(shown) == 1 and shown[0].digest == latest.digest
        return (None, False) if same else ([latest], False)
    if shown or not opening:
        return None, False
    return [load_photo(path) for path in opening], True
