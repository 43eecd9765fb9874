"""Give a probe that was trained without it its map of near and far, without training its head again."""

from typing import TYPE_CHECKING

from .card import check_engine
from .fitting import Pairs, Reader, split_pairs
from .nearness import fit_nearness

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from .probe import DepthProbe


def add_nearness(
    probe: "DepthProbe", engine: "Engine", pairs: Pairs, val: Pairs, groups: list[str] | None = None
) -> None:
    """Fit `nearness_` of a probe in metres in place, and measure the probe anew.

    Args:
        probe: Fitted or loaded; a map that it has already is replaced.
        engine: Of its backbone.
        pairs: (image, depth) of the pictures that it was trained on, or a part of them.
        val: Pairs for the card's metrics.
        groups: A scene for each pair; every scene counts the same.

    Raises:
        ValueError: The probe is relative or published, the engine is another's, or no depth map can be used.
    """
    check_engine(probe, engine)
    if probe.relative or not probe.card_["normed"]:
        raise ValueError("only probes in metres that were trained here take a map of near and far; train one anew")
    split = split_pairs(probe, pairs, val, groups)
    reader = Reader(probe, engine, tuple(probe.card_["layers"]), probe.head, None, len(split.chosen))
    found = fit_nearness(reader.read(split.chosen, False, split.weights or None), engine.backbone.width)
    if found is None:
        raise ValueError("no depth map has readings enough; give denser depth maps")
    probe.nearness_ = found
    nearness = {"layer": probe.card_["layers"][-1], **found.facts(), "pairs": len(split.chosen)}
    metrics = probe.evaluate(engine, split.held, guided=False)
    probe.set_card(probe.card_ | {"nearness": nearness, "metrics": metrics})
