"""Objects cut out by their true masks and pasted, turned and scaled, onto photos that their reference never showed."""

import random
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from dinodemo.io.images import load_image

SIDE = 640  # pixels of the longer side of the photo that is pasted onto
SHARE = (0.3, 0.7)  # of its shorter side that the object takes up
TURN = 15  # degrees at most


def paste_pairs(pairs: list, backgrounds: list, folder: Path, name: str) -> list:
    """Write a pasted target for every pair whose object lies inside its photo; return pairs of the set `name`.

    backgrounds: pairs whose targets are pasted onto; a pair takes one of its own half. folder receives the PNG files.
    """
    rng = random.Random(0)
    result = []
    for i, pair in enumerate(pairs):
        photo, mask = load_image(pair.target_image), load_image(pair.target_mask)[..., 0] > 127
        if mask[[0, -1]].any() or mask[:, [0, -1]].any():
            continue  # cut off by the photo's edge
        onto = rng.choice([b for b in backgrounds if b.half == pair.half]).target_image
        picture, pasted = paste(photo, mask, load_image(onto), rng)
        image, truth = folder / f"{i}.png", folder / f"{i}_mask.png"
        cv2.imwrite(str(image), picture[..., ::-1])
        cv2.imwrite(str(truth), pasted.astype(np.uint8) * 255)
        result.append(replace(pair, set=name, target_image=image, target_mask=truth))
    return result


def paste(photo: np.ndarray, mask: np.ndarray, onto: np.ndarray, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Paste the masked part of a photo onto another: returns the picture (H, W, 3) uint8 and its mask (H, W) bool."""
    scale = SIDE / max(onto.shape[:2])
    onto = cv2.resize(onto, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    height, width = onto.shape[:2]
    rows, columns = np.nonzero(mask)
    middle = float(columns.mean()), float(rows.mean())
    factor = rng.uniform(*SHARE) * min(height, width) / max(np.ptp(rows), np.ptp(columns))
    move = cv2.getRotationMatrix2D(middle, rng.uniform(-TURN, TURN), factor)
    move[:, 2] += rng.uniform(0.4, 0.6) * width - middle[0], rng.uniform(0.4, 0.6) * height - middle[1]
    cutting = cv2.warpAffine(photo, move, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    cover = cv2.warpAffine(mask.astype(np.float32), move, (width, height))
    alpha = cv2.GaussianBlur(cover, (0, 0), 1)[..., None]
    return np.rint(onto * (1 - alpha) + cutting * alpha).astype(np.uint8), cover > 0.5
