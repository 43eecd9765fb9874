"""What a new run must fit into: the limits of a person, of an address, of all runs together, and of the disk."""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from .records import Limits, hours_of_today


def check_folder(folder: Path, limits: Limits) -> None:
    """Check that a folder of photos is not too large.

    Args:
        folder: Of photos, with all folders in it.
        limits: Give the most files and bytes.

    Raises:
        ValueError: It holds more.
    """
    count = size = 0
    for root, _, names in os.walk(folder):
        count += len(names)
        size += sum(os.lstat(os.path.join(root, name)).st_size for name in names)
        if count > limits.photos or size > limits.photo_bytes:
            raise ValueError(
                f"the folder holds more than the {limits.photos} files or {limits.photo_bytes / 1e9:g} GB that "
                "this server takes; leave some out, or run dinodemo on your own machine"
            )


def check_disk(root: Path, limits: Limits) -> None:
    """Check that the disk of the runs has room for one more.

    Args:
        root: Of the runs; created where it is missing.
        limits: Give the least free bytes.

    Raises:
        RuntimeError: The disk is nearly full.
    """
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < limits.free_disk:
        raise RuntimeError(f"the server's disk has {free / 1e9:.1f} GB left, too little for a run; delete old runs")


def check_queue(busy: Collection[Path], own: Collection[Path], requests: Mapping[Path, dict], limits: Limits) -> None:
    """Check that not too many runs wait or train already.

    Args:
        busy: Runs of all persons that wait or train.
        own: All runs that came from the same address; empty where the address has no limits of its own.
        requests: Of all runs.
        limits: Give the most runs in the queue, those of one address, and its hours a day.

    Raises:
        ValueError: There are too many runs, or the address has had its hours.
    """
    if len(busy) >= limits.queue:
        raise ValueError(f"{len(busy)} runs wait already, the most that this server takes; try again later")
    if len({*busy} & {*own}) >= limits.queue_per_address:
        raise ValueError(f"{limits.queue_per_address} of your runs wait already; wait until one has ended")
    used = sum(hours_of_today(requests.get(path, {}), path, path in busy) for path in own)
    if used >= limits.hours_a_day:
        raise ValueError(
            f"your runs trained for {used:.1f} hours within a day, the most that this server grants; come back "
            "tomorrow, or run dinodemo on your own machine"
        )
