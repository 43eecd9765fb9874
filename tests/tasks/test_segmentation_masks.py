"""Masks from pictures: black and white, palettes, indices, colours, opacity; and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from dinodemo.io.images import Photo, load_photo
from dinodemo.tasks.segmentation.masks import open_mask_file, read_mask_file

H, W = 200, 300
PHOTO = Photo(np.zeros((H, W, 3), np.uint8), "photo.jpg")
DISK = Image.new("L", (W, H), 0)
ImageDraw.Draw(DISK).ellipse((80, 50, 200, 150), fill=255)
OBJECT = np.asarray(DISK) > 127
RING = (np.asarray(DISK.filter(ImageFilter.MaxFilter(9))) > 127) & ~OBJECT
FLOOR = np.zeros((H, W), bool)
FLOOR[160:] = True
SOFT = DISK.filter(ImageFilter.GaussianBlur(2))
RNG = np.random.default_rng(0)


def iou(a, b) -> float:
    return (a & b).sum() / (a | b).sum()


def labels(background=0, value=1, void=None, floor=None, dtype=np.uint8) -> Image.Image:
    out = np.full((H, W), background, dtype)
    out[OBJECT] = value
    if void is not None:
        out[RING] = void
    if floor is not None:
        out[FLOOR] = floor
    return Image.fromarray(out)


def colours(background=(0, 0, 0), value=(200, 0, 0), floor=None) -> Image.Image:
    out = np.full((H, W, 3), background, np.uint8)
    out[OBJECT] = value
    if floor is not None:
        out[FLOOR] = floor
    return Image.fromarray(out)


def palette(index: np.ndarray, table: list) -> Image.Image:
    image = Image.fromarray(index.astype(np.uint8), "L").convert("P")
    image.putdata(index.astype(np.uint8).ravel().tolist())
    image.putpalette([v for colour in table for v in colour])
    return image


def with_alpha(rgb: Image.Image, alpha) -> Image.Image:
    image = rgb.convert("RGBA")
    image.putalpha(Image.fromarray(np.asarray(alpha).astype(np.uint8)))
    return image


def transparent_palette() -> Image.Image:
    image = palette(OBJECT, [(0, 0, 0), (20, 90, 30)])
    image.info["transparency"] = 0
    return image


ONE = {  # what all mean the object alone
    "grey.png": DISK,
    "one_bit.png": DISK.convert("1"),
    "soft.png": SOFT,
    "very_soft.png": DISK.filter(ImageFilter.GaussianBlur(8)),
    "quantized.png": DISK.convert("RGB").quantize(2),
    "soft_quantized.png": SOFT.convert("RGB").quantize(16),
    "white_is_0.png": palette(~OBJECT, [(255, 255, 255), (0, 0, 0)]),
    "light_grey_is_0.png": palette(~OBJECT, [(200, 200, 200), (10, 10, 10)]),
    "mask.gif": DISK.convert("RGB"),
    "lossy.jpg": DISK,
    "mask.bmp": DISK.convert("1"),
    "ones.png": labels(),
    "255_is_void.png": labels(value=1, void=255),
    "dark.png": labels(value=40),
    "16_bit.png": labels(value=65535, dtype=np.uint16),
    "16_bit_label.png": labels(value=3000, dtype=np.uint16),
    "32_bit.tif": labels(value=1, dtype=np.int32),
    "float.tif": Image.fromarray(np.asarray(SOFT, np.float32) / 255),
    "red.png": colours(),
    "red_on_white.png": colours((255, 255, 255)),
    "red_lossy.jpg": colours(value=(220, 20, 20)),
    "soft_red.png": Image.fromarray(np.dstack([np.asarray(SOFT), np.zeros((H, W, 2), np.uint8)])),
    "cut_out.png": with_alpha(Image.fromarray(RNG.integers(0, 255, (H, W, 3), np.uint8)), 255 * OBJECT),
    "black_opaque.png": with_alpha(Image.new("RGB", (W, H)), 255 * OBJECT),
    "half_opaque.png": with_alpha(colours(), 120 * OBJECT),
    "grey_alpha.png": Image.merge("LA", (DISK, Image.new("L", (W, H), 255))),
    "alpha.png": Image.merge("LA", (Image.new("L", (W, H), 255), DISK)),
    "transparent_palette.png": transparent_palette(),
    "transparent.gif": transparent_palette(),
    "voc.png": palette(np.asarray(labels(value=15, void=255)), [(i, i * 3 % 256, 9) for i in range(256)]),
    "trimap.png": Image.fromarray(np.where(OBJECT, 255, np.where(RING, 128, 0)).astype(np.uint8)),
}


@pytest.mark.parametrize("name", ONE)
def test_every_way_to_write_one_object_is_read(name, tmp_path):
    options = {"quality": 90} if name.endswith(".jpg") else {}
    options |= {"transparency": 0} if name.startswith("transparent") else {}
    ONE[name].save(tmp_path / name, **options)
    found = read_mask_file(tmp_path / name, PHOTO)
    assert iou(found, OBJECT) > (0.96 if "soft" in name or name == "float.tif" else 0.995)


SEVERAL = {  # name: (picture, label of the object, other labels)
    "ade": (labels(value=7, floor=140), "7", {"140"}),
    "ade_void": (labels(value=7, floor=140, void=255), "7", {"140"}),
    "many": (Image.fromarray((np.arange(W) // 20)[None].repeat(H, 0).astype(np.uint8)), "3", None),
    "cityscapes": (labels(7, 26, void=255), "26", {"7"}),
    "no_zero": (labels(1, 2), "2", {"1"}),
    "instances_16_bit": (labels(7, 26001, floor=26002, dtype=np.uint16), "26001", {"7", "26002"}),
    "red_and_green": (colours(floor=(0, 255, 0)), "#c80000", {"#00ff00"}),
    "colour_word": (colours(floor=(0, 255, 0)), "red", {"#00ff00"}),
    "colour_numbers": (colours(floor=(0, 255, 0)), "200, 0, 0", {"#00ff00"}),
    "quantized_colours": (colours(floor=(0, 255, 0)).quantize(4), "red", None),
    "no_black": (colours((128, 64, 128), (0, 0, 142), (244, 35, 232)), "#00008e", {"#804080", "#f423e8"}),
    "layers": (with_alpha(colours(floor=(0, 255, 0)), 255 * (OBJECT | FLOOR)), "#c80000", {"#00ff00"}),
    "voc_palette": (
        palette(np.asarray(labels(value=15, floor=9, void=255)), [(i, i * 3 % 256, 9) for i in range(256)]),
        "15",
        {"9"},
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_labels_are_listed_and_one_is_chosen(name, tmp_path):
    picture, wanted, others = SEVERAL[name]
    picture.save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png holds \d+ labels: .*%.*choose"):
        read_mask_file(tmp_path / "m.png", PHOTO)
    file = open_mask_file(tmp_path / "m.png", PHOTO)
    if others is not None:
        assert {label.name for label in file.labels} == others | {file.find(wanted)}
    truth = np.asarray(picture) == 3 if name == "many" else OBJECT
    assert iou(read_mask_file(tmp_path / "m.png", PHOTO, [wanted]), truth) > 0.99
    shares = [label.share for label in file.labels]
    assert shares == sorted(shares, reverse=True) and file.choose([file.labels[0].name]).mean() == shares[0]


def test_several_labels_may_be_the_object_together(tmp_path):
    labels(value=7, floor=140).save(tmp_path / "m.png")
    assert np.array_equal(read_mask_file(tmp_path / "m.png", PHOTO, ["7", "140"]), OBJECT | FLOOR)
    assert np.array_equal(read_mask_file(tmp_path / "m.png", PHOTO, ["0"]), ~(OBJECT | FLOOR))
    with pytest.raises(ValueError, match="no label '9'; it holds 140"):
        read_mask_file(tmp_path / "m.png", PHOTO, ["9"])


def photo_like(noise: int) -> np.ndarray:
    waves = 127 + 120 * np.sin(np.linspace(0, 9, W))[None, :, None] * np.cos(np.linspace(0, 7, H))[:, None, None]
    return np.clip(waves + RNG.normal(0, noise, (H, W, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        RNG.integers(0, 255, (H, W, 3), np.uint8),
        RNG.integers(0, 255, (H, W), np.uint8),
        photo_like(5),
        photo_like(5)[..., 0],
        photo_like(1),
    ],
)
def test_a_photo_is_refused(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png looks like a photo, not a mask"):
        read_mask_file(tmp_path / "m.png", PHOTO)


@pytest.mark.parametrize("name", ["coffee_cup", "cat_chelsea"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_shipped_photo_is_refused(name, mode, tmp_path):
    photo = load_photo(Path(__file__).parents[2] / "assets" / f"{name}.jpg")
    Image.fromarray(photo.rgb).convert(mode).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="looks like a photo"):
        read_mask_file(tmp_path / "m.png", photo)


def test_more_than_half_is_said_and_can_be_inverted(tmp_path):
    Image.fromarray(np.where(OBJECT, 0, 255).astype(np.uint8)).save(tmp_path / "m.png")
    file = open_mask_file(tmp_path / "m.png", PHOTO)
    assert "84% of the photo; if the object is the rest, invert" in file.message(file.choose())
    assert np.array_equal(read_mask_file(tmp_path / "m.png", PHOTO, invert=True), OBJECT)
    assert not file.message(OBJECT)


def test_void_and_soft_edges_are_said(tmp_path):
    labels(value=1, void=255).save(tmp_path / "m.png")
    assert "255 in m.png is left out" in open_mask_file(tmp_path / "m.png", PHOTO).message(OBJECT)
    SOFT.save(tmp_path / "s.png")
    assert "soft" in open_mask_file(tmp_path / "s.png", PHOTO).message(OBJECT)


def test_a_mask_of_another_shape_says_both_sizes(tmp_path):
    Image.new("L", (W, H + 40), 255).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="mask is 300x240 but the photo is 300x200"):
        read_mask_file(tmp_path / "m.png", PHOTO)


def test_a_smaller_mask_of_the_same_shape_is_scaled(tmp_path):
    half = np.zeros((H // 2, W // 2), np.uint8)
    half[:50] = 255
    Image.fromarray(half).save(tmp_path / "m.png")
    mask = read_mask_file(tmp_path / "m.png", PHOTO)
    assert mask[:100].all() and not mask[100:].any()


@pytest.mark.parametrize("value", [0])
def test_an_empty_mask_is_refused(value, tmp_path):
    Image.new("L", (W, H), value).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="marks nothing"):
        read_mask_file(tmp_path / "m.png", PHOTO)
