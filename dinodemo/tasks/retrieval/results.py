"""What an index answers: hits, entries, statistics."""

from dataclasses import dataclass

from .store import Recipe

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the upright photo


@dataclass(frozen=True)
class Hit:
    """A photo that was found."""

    path: str
    score: float  # what the hits are ordered by: 1 at most, about 0 for photos that have nothing in common
    cosine: float  # of the descriptors as they are
    label: str | None
    sha256: str
    size: tuple[int, int]  # (H, W) of the upright photo
    nbytes: int  # of its file
    thumbnail: bytes  # JPEG
    region: Box | None = None  # where the query's region was found


def to_hit(row: dict) -> Hit:
    """Make a hit of a table's row with its `score` and `cosine`."""
    size = (row["height"], row["width"])
    return Hit(
        row["path"], row["score"], row["cosine"], row["label"], row["sha256"], size, row["nbytes"], row["thumbnail"]
    )


@dataclass(frozen=True)
class Entry:
    """A photo of an index."""

    sha256: str
    path: str
    label: str | None


@dataclass(frozen=True)
class Statistics:
    """What is known of an index as a whole."""

    count: int
    labels: dict[str, int]  # photos of each label
    photo_bytes: int  # of the photos' files
    recipe: Recipe | None  # None before the first photo
    search: str  # "exact", "approximate", "building" or "exact, from disk"
    recall_at_10: float | None  # measured against exact search, where search is approximate
    note: str = ""  # why something is not as it should be
