"""The API's `depth`, `depth_space`, `depth_pairs` and `depth_train`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...engine.provenance import made_with_name
from ...web.api_values import File, as_file, check_backbone, check_choice, read_path, read_photo
from ..base import COLOUR_MAP, RESOLUTION
from . import draw
from .camera import field_of_view
from .options import EPOCHS, FLIP, FORMS, FOV, GUIDED, INVERSE, KIND, METRES, RELATIVE, UNIT
from .probe_store import ProbeStore, probe_file
from .survey import summary
from .units import NO_UNIT

if TYPE_CHECKING:
    from ...web.services import Services

    ColourMap = str
else:
    ColourMap = Literal[COLOUR_MAP.choices]  # what Gradio tells callers


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    api = DepthApi(services, ProbeStore(services))
    return (api.depth, api.depth_space, api.depth_pairs, api.depth_train)


@dataclass(frozen=True)
class DepthApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"
    probes: ProbeStore

    def depth(
        self,
        photo: File,
        probe: str = "",
        flip: bool = FLIP.default,
        guided: bool = GUIDED.default,
        colour_map: ColourMap = COLOUR_MAP.default,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
        metres: bool = METRES.default,
    ) -> tuple[File, File, dict]:
        """Estimate depth from one photo. Returns colours (.png), the numbers (.npy, (H, W) float32), a summary.

        The summary has the unit (metres, or relative), the range, on what the probe was trained, and `inside`: whether
        the photo is like those. Outside of them the numbers are relative (near to far, 1 is the farthest).

        Parameters:
            photo: a picture of any usual format
            probe: as the page's list calls it; empty is the one that came with the backbone
            flip: average with the mirror image
            guided: follow the photo's edges
            colour_map: of the colours
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
            metres: give metres also for photos unlike those that the probe was trained on
        """
        colours = COLOUR_MAP.check(colour_map)
        view, key, made_by = self._view(photo, probe, flip, guided, backbone, resolution, metres)
        look = draw.Look(*draw.natural_range(view.depth), colours, False)
        summary = {"backbone": made_by, **draw.facts(view), "probe": key}
        return as_file(draw.picture_file(view, look)), as_file(draw.array_file(view)), summary

    def depth_space(
        self,
        photo: File,
        space: str = FORMS.default,
        fov: float | None = None,
        probe: str = "",
        flip: bool = FLIP.default,
        guided: bool = GUIDED.default,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
        metres: bool = METRES.default,
    ) -> tuple[File, dict]:
        """Put one photo's depth into space. Returns points (.ply) or a mesh (.glb, the photo on it), and facts.

        x is to the right, y up, and the camera at the origin looks along -z. The facts are those of `depth`,
        the field of view, and where it is from (camera).

        Parameters:
            photo: a picture of any usual format
            space: points or mesh; a mesh is cut at steps of depth
            fov: field of view along the longer side in degrees, 2 to 140; null goes by the photo's file, else 65
            probe: as depth has it
            flip: average with the mirror image
            guided: follow the photo's edges
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
            metres: give metres also for photos unlike those that the probe was trained on
        """
        form, asked = FORMS.check(space), None if fov is None else FOV.check(fov)
        view, key, made_by = self._view(photo, probe, flip, guided, backbone, resolution, metres)
        angle = field_of_view(view.photo) if asked is None else asked
        summary = {"backbone": made_by, **draw.facts(view, angle), "probe": key}
        return as_file(draw.space_file(view, angle, form)), summary

    def _view(self, photo: File, probe: str, flip, guided, backbone: str, resolution: int, metres) -> tuple:
        """Estimate a photo's depth; returns the view, the probe's key and the backbone's name."""
        name, side = check_backbone(self.services, backbone, resolution)
        flip, guided, metres = FLIP.check(flip), GUIDED.check(guided), METRES.check(metres)
        made_by = self.services.pool.get(name).backbone.name
        key = self._probe(probe, made_by)
        given = read_photo(photo, "photo")
        found = self.probes.estimate(key, (), given, name, side, flip, guided, metres)
        return draw.View.of(given, found, made_with_name(made_by, found.identity)), key, made_by

    def depth_pairs(self, pairs: File, unit: str = UNIT.default, inverse: bool | None = None) -> dict:
        """Report how photos and depth maps are paired and read, before a probe is trained on them.

        Returns count, unit, units in a metre, median, near and far, a histogram (depth, percent), the pairing, what
        was taken for granted (messages), what is probably wrong (warnings), and what was left out.

        Parameters:
            pairs: a zip of photos and depth maps: rgb/x.jpg with depth/x.png, layouts of public sets, or with a csv
            unit: units in a metre, or mm, cm, m, kitti, tum, none (near and far only), auto (guess)
            inverse: larger values are nearer; null goes by the names of folders and by the pictures, and says so
        """
        found, problems = self._read(pairs, unit, inverse)
        return {**summary(found), "left_out": [list(problem) for problem in problems]}

    def depth_train(
        self,
        pairs: File,
        unit: str = UNIT.default,
        inverse: bool | None = None,
        relative: bool = RELATIVE.default,
        kind: str = KIND.default,
        epochs: int = EPOCHS.default,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
    ) -> tuple[File, dict]:
        """Train a depth probe on photos with depth maps. Returns its file and how well it does on held-out pairs.

        Parameters:
            pairs: as depth_pairs has it
            unit: as depth_pairs has it
            inverse: as depth_pairs has it
            relative: the depth maps have no scale
            kind: lin4 reads four layers, lin1 the last one
            epochs: at most, 1 to 100
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        from . import DepthProbe

        name, side = check_backbone(self.services, backbone, resolution)
        kind, epochs, relative = KIND.check(kind), EPOCHS.check(epochs), RELATIVE.check(relative)
        found, problems = self._read(pairs, NO_UNIT if relative and unit == UNIT.default else unit, inverse)
        engine = self.services.pool.get(name)
        probe = DepthProbe(kind, epochs, side, relative=relative or found.info.unit == "relative", engine=engine)
        groups = [pair.group for pair in found]
        probe.fit(found, groups=groups if len(set(groups)) > 1 else None, data=f"{len(found)} pairs")
        left = [list(problem) for problem in problems]
        facts = {"note": probe.note_, "metrics": probe.metrics_, "read": summary(found), "left_out": left}
        return as_file(probe_file((("probe", probe),))), facts

    @staticmethod
    def _read(pairs: File, unit: str, inverse: bool | None):
        from . import read_pairs

        if inverse is not None:
            INVERSE.check(inverse)
        return read_pairs(read_path(pairs, "pairs"), unit=unit, inverse=inverse)

    def _probe(self, asked: str, backbone: str) -> str:
        """Return the key of the probe that was asked for, or of the one that came with the backbone."""
        keys = [key for _, key in self.probes.choices(backbone)]
        ready = [key for _, key in self.probes.ready(backbone)]
        if asked == "" and not ready:
            raise ValueError(f"no depth probe came with {backbone}; probe may be one of {', '.join(keys)}")
        return ready[0] if asked == "" else check_choice(asked, "probe", keys)
