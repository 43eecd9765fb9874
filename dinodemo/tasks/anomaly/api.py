"""The API's `anomaly`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...engine.provenance import made_with_name
from ...io.files import stem
from ...io.images import load_photo, shrink
from ...web.api_values import File, as_file, check_backbone, name_of, read_files, read_path, read_photo, reason_of
from ..base import RESOLUTION
from .detector import AUGMENT, FOREGROUND, AnomalyDetector
from .draw import LINE
from .export import FULL_SCALE, map_png, scores_csv
from .learning import MOST_GOOD

if TYPE_CHECKING:
    from ...web.services import Services

MOST_CHECKED = 200


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (AnomalyApi(services).anomaly,)


@dataclass(frozen=True)
class AnomalyApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"

    def anomaly(
        self,
        photos: list[File],
        good: list[File] | None = None,
        saved: File | None = None,
        line: float = LINE.default,
        augment: str = AUGMENT.default,
        foreground: str = FOREGROUND.default,
        backbone: str = "",
        resolution: int = RESOLUTION.default,
    ) -> tuple[list[File], File, File, dict]:
        """Score photos by what is unlike all good photos. Returns maps, scores (.csv), the learned set, a summary.

        Maps are 16-bit PNG: 65535 is 4 times the line up to which good photos reach, for every photo. Photos that
        cannot be read are named in the summary, and the others go on.

        Parameters:
            photos: 1 to 200 photos to check
            good: 1 to 100 good photos; or none, and a saved set
            saved: a set that an earlier call returned, instead of good photos
            line: 0.2 to 4; photos that score higher are anomalies, 1 is what the good photos gave
            augment: none, flips, rotations or crops: views of the good photos that are good, too
            foreground: auto leaves the background out where an object clearly stands out, off never does
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees at most this number squared of pixels, 56 to 1022
        """
        name, side = check_backbone(self.services, backbone, resolution)
        line = LINE.check(line)
        files = read_files(photos, "photos", MOST_CHECKED, least=1)
        engine = self.services.pool.get(name)
        if saved is not None and good:
            raise ValueError("give good photos or a saved set, not both")
        if saved is not None:
            detector = AnomalyDetector.load(read_path(saved, "saved"), engine)
        else:
            given = read_files(good, "good", MOST_GOOD, least=1)
            detector = AnomalyDetector(engine, side, AUGMENT.check(augment), FOREGROUND.check(foreground))
            detector.fit([read_photo(file, f"good photo {i}") for i, file in enumerate(given, start=1)])
        maps, rows, left_out = _checked(detector, files, line)
        table = [(row["name"], row["score"], row["verdict"]) for row in rows]
        summary = {"good": detector.card(), "photos": rows, "left_out": left_out, "line": line}
        summary |= {
            "map_full_scale": FULL_SCALE,
            "made_with": made_with_name(detector.backbone_, detector.engine.identity),
        }
        learned = as_file(("good-photos.safetensors", detector.to_bytes()))
        return maps, as_file(("scores.csv", scores_csv(table))), learned, summary


def _checked(detector: AnomalyDetector, files: list[File], line: float) -> tuple[list[File], list[dict], list[dict]]:
    """Score photos; returns their maps, facts, and what was left out."""
    words, maps, rows, left_out = made_with_name(detector.backbone_, detector.engine.identity), [], [], []
    for i, file in enumerate(files, start=1):
        try:
            path = read_path(file, f"photo {i}")
            photo = load_photo(path, name_of(file, path))
            result = replace(detector.predict(shrink(photo)), image_size=photo.size)
        except ValueError as error:
            left_out.append({"photo": i, "reason": reason_of(error)})
            continue
        maps.append(as_file((f"{i:03d}-{stem(photo.name)}.png", map_png(result, words))))
        rows.append(
            {"photo": i, "name": photo.name, "score": round(result.score, 6), "verdict": result.verdict_at(line)}
        )
    return maps, rows, left_out
