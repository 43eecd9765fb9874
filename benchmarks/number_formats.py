"""bfloat16 against float32 on one backbone: do tokens, attention sinks and PCA colours stay what they are?

For each photo of a folder, at 518 px: cosine of every patch token and of the class token, the patches found as
attention sinks, the patches that PCA takes for foreground, and the colours on those that both do.
"""

import argparse
import sys
from pathlib import Path

import _common  # noqa: F401  # puts the repository on the path
import numpy as np

BACKBONE = "dinov2-small-offline"


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine along the last axis."""
    return (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)


def compare(exact, short) -> dict[str, float]:
    """Compare one photo's features in float32 and in the shorter format."""
    from dinodemo.tasks.attention.maps import attention_sinks
    from dinodemo.tasks.pca import PatchPCA

    patches = cosine(exact.patches, short.patches)
    sinks = [attention_sinks(f).patches for f in (exact, short)]
    pca = PatchPCA().fit([exact])  # one basis for both, so that a sign that flips is not a difference
    first, second = pca.transform(exact), pca.transform(short)
    both = np.isfinite(first[..., 0]) & np.isfinite(second[..., 0])
    return {
        "patch_median": float(np.median(patches)),
        "patch_worst": float(patches.min()),
        "cls": float(cosine(exact.cls, short.cls)),
        "sinks": float(sinks[0].sum()),
        "sinks_changed": float((sinks[0] != sinks[1]).sum()),
        "foreground_changed": float((np.isfinite(first[..., 0]) != np.isfinite(second[..., 0])).mean()),
        "colour_mean": float(np.abs(first - second)[both].mean()),
        "colour_worst": float(np.abs(first - second)[both].max()),
    }


def main() -> None:
    from dinodemo import Engine
    from dinodemo.io.files import is_photo

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of photos, with those inside")
    parser.add_argument("--photos", type=int, default=100, help="spread over the folder (default: %(default)s)")
    parser.add_argument("--resolution", type=int, default=518)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    found = sorted(path for path in args.folder.rglob("*") if is_photo(path.name))
    paths = [found[i * len(found) // min(args.photos, len(found))] for i in range(min(args.photos, len(found)))]
    exact, short = (Engine(BACKBONE, device="cpu", dtype=dtype) for dtype in ("float32", args.dtype))
    rows = []
    for i, path in enumerate(paths, start=1):
        rows.append(compare(*(e.features(path, args.resolution, attention=True) for e in (exact, short))))
        print(f"\r{i} of {len(paths)}", end="", file=sys.stderr)
    column = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    print(f"\n{len(rows)} photos of {args.folder.name} at {args.resolution} px, {args.dtype} against float32")
    print(
        f"patch tokens, cosine: median {np.median(column['patch_median']):.5f}, worst {column['patch_worst'].min():.5f}"
    )
    print(f"class token, cosine: median {np.median(column['cls']):.5f}, worst {column['cls'].min():.5f}")
    print(f"attention sinks: {column['sinks'].sum():.0f} patches, changed {column['sinks_changed'].sum():.0f}")
    print(f"PCA foreground: {column['foreground_changed'].mean():.3%} of the patches changed")
    print(
        f"PCA colours (0 to 1): mean change {column['colour_mean'].mean():.4f}, "
        f"worst {column['colour_worst'].max():.3f}"
    )


if __name__ == "__main__":
    main()
