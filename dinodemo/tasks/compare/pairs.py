"""Two photos' features, ready to be compared."""

from typing import TYPE_CHECKING

from ...io.images import Photo
from ..tokens import positional_basis_of
from .draw import Pair

if TYPE_CHECKING:
    from ...web.services import Services


def compare(
    services: "Services",
    photos: tuple[Photo, Photo],
    before: Pair | None,
    placeless: bool,
    backbone: str,
    resolution: float,
) -> Pair:
    """Return both photos with their features; what is already there is kept.

    Args:
        services: Run the backbone.
        photos: Both of them.
        before: The pair of the last time.
        placeless: Take the directions of position out of the patches.
        backbone: Name.
        resolution: px.
    """
    resolution = int(resolution)
    key = (photos[0].digest, photos[1].digest, bool(placeless), backbone, resolution)
    if before is not None and before.key == key:
        return before
    first, second = (services.run(photo, backbone, resolution).features for photo in photos)
    basis = positional_basis_of(services.pool.get(backbone), resolution) if placeless else None
    point = before.point if before is not None and _same_grids(before, first, second) else None
    return Pair(photos, (first, second), basis, key, point)


def _same_grids(before: Pair, *features) -> bool:
    return [f.grid for f in before.features] == [f.grid for f in features]
