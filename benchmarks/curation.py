"""Near copies and bad photos: what curation finds, and what it flags wrongly.

Near copies on edited copies of photos among distractors and photos of the same objects (which are no copies); the
thresholds were chosen on half A of the originals. Damage (blur, darkness, haze) is made here, on real photos.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from dinodemo import Engine
from dinodemo.backbones import OFFLINE_DEFAULT
from dinodemo.curation import Thresholds, examine, near_copies, suggest
from dinodemo.io.images import load_image

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "retrieval"
PICTURES = (".jpg", ".jpeg", ".png")


def pictures(folder: Path, most: int | None = None) -> list[Path]:
    """List the pictures of a folder."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)[:most]


def copies_table(engine: Engine) -> None:
    """Print precision and recall by kind of edit, for the half the thresholds were chosen on and the other."""
    root = DATA / "copies"
    paths = pictures(root) + pictures(DATA / "distractors_imagenet", 250) + pictures(DATA / "dreambooth_objects")
    found = examine(engine, paths)
    limits = Thresholds()
    pairs = near_copies(found, limits.cosine, limits.overlap)
    attack, origin = {}, {path: path for path in paths}
    for row in csv.DictReader((root / "queries.csv").open()):
        attack[root / row["query"]], origin[root / row["query"]] = row["attack"], root / row["original"]
    originals = sorted({origin[path] for path in attack})
    half = {path: "AB"[i % 2] for i, path in enumerate(originals)}
    right = {
        frozenset((found.paths[i], found.paths[j]))
        for i, j, _ in pairs
        if origin[found.paths[i]] == origin[found.paths[j]]
    }
    wrong = [(found.paths[i], found.paths[j]) for i, j, _ in pairs if origin[found.paths[i]] != origin[found.paths[j]]]
    print(f"{len(paths)} photos; {len(right)} right pairs, {len(wrong)} wrong: precision {len(right) / len(pairs):.3f}")
    for a, b in wrong:
        print(f"  wrong: {a.parent.name}/{a.name}  {b.parent.name}/{b.name}")
    linked = {path for pair in right for path in pair}
    print(f"{'edit':<10}{'A':>8}{'B':>8}   (share of edited photos that are linked to the original or another copy)")
    for kind in sorted(set(attack.values())):
        shares = []
        for letter in "AB":
            mine = [path for path, name in attack.items() if name == kind and half[origin[path]] == letter]
            shares.append(np.mean([path in linked for path in mine]))
        print(f"{kind:<10}{shares[0]:>8.3f}{shares[1]:>8.3f}")


def damage(rgb: np.ndarray, kind: str) -> np.ndarray:
    """Spoil a picture as a camera does."""
    if kind == "blurred":
        return cv2.GaussianBlur(rgb, (0, 0), max(rgb.shape) / 80)
    if kind == "dark":
        return (rgb * 0.1).astype(np.uint8)
    if kind == "washed out":
        return (190 + rgb * 0.12).astype(np.uint8)
    return cv2.GaussianBlur(rgb, (0, 0), max(rgb.shape) / 4)  # plain


def damage_table(engine: Engine, sources: list[Path]) -> None:
    """Print how often each kind of damage is seen, and what is said of the undamaged photos."""
    limits = Thresholds(cosine=None, outlier=None)
    with tempfile.TemporaryDirectory() as name:
        clean = [s for s in suggest(examine(engine, sources), limits) if s.kind not in ("copy", "tiny")]
        print(f"undamaged: {len(clean)} of {len(sources)} flagged: {[(s.path.name, s.kind) for s in clean[:5]]}")
        for kind in ("blurred", "dark", "washed out", "plain"):
            folder = Path(name) / kind.replace(" ", "_")
            folder.mkdir()
            for i, path in enumerate(sources):
                cv2.imwrite(str(folder / f"{i}.png"), damage(load_image(path), kind)[:, :, ::-1])
            told = suggest(examine(engine, pictures(folder)), limits)
            exact = sum(s.kind == kind for s in told)
            print(f"{kind:<12} flagged {len(told) / len(sources):.3f}, as {kind} {exact / len(sources):.3f}")


def main() -> None:
    """Run both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damaged", type=int, default=60, help="photos to spoil")
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing: this benchmark needs its photos")
    engine = Engine(OFFLINE_DEFAULT)
    copies_table(engine)
    damage_table(engine, pictures(DATA / "distractors_imagenet")[-args.damaged :])


if __name__ == "__main__":
    main()
