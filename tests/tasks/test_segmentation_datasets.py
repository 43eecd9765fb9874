"""Sets of photos for a head: labels of any numbers, soft edges, and the annotations that tools export."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageFilter
from test_segmentation_annotations import CAT, CUP, CVAT, PHOTO, H, W, coco, label_studio, labelme, percent, yolo

from dinodemo.tasks.segmentation_head import SegmentationHead, read_dataset
from dinodemo.tasks.segmentation_head.dataset import check_masks

INDEX = np.where(CAT, 1, np.where(CUP, 2, 0)).astype(np.uint8)  # names are sorted: cat, cup


def encoded(array, kind="PNG") -> bytes:
    stream = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(stream, kind)
    return stream.getvalue()


def array_bytes(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


JPEG = encoded(PHOTO.rgb, "JPEG")
BOX, TRIANGLE = [10, 20, 40, 20, 40, 50, 10, 50], [60, 5, 85, 55, 50, 55]
STUDIO = label_studio(
    {"points": percent(BOX), "polygonlabels": ["cup"]}, {"points": percent(TRIANGLE), "polygonlabels": ["cat"]}
)
SETS = {
    "coco": {"images/room 1.jpg": JPEG, "annotations/instances.json": json.dumps(coco([BOX]))},
    "labelme": {"room 1.jpg": JPEG, "room 1.json": json.dumps(labelme())},
    "yolo": {"images/room 1.jpg": JPEG, "labels/room 1.txt": yolo(), "data.yaml": "names: [cup, cat]\n"},
    "cvat": {
        "images/room 1.jpg": JPEG,
        "annotations.xml": CVAT % '<polygon label="cup" points="10,20;40,20;40,50;10,50"/>',
    },
    "studio": {"images/0a1b2c3d-room 1.jpg": JPEG, "room 1.jpg": JPEG, "export.json": json.dumps(STUDIO)},
}


def write_zip(path, files) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", SETS)
def test_annotations_of_every_tool_give_named_classes(name, tmp_path):
    write_zip(tmp_path / "set.zip", SETS[name])
    found = read_dataset(tmp_path / "set.zip")
    (_, mask), names = found.pairs[0], found.classes
    expected = INDEX if name != "yolo" else np.where(INDEX, 3 - INDEX, 0)
    assert len(found.pairs) == 1 and names == (["cat", "cup"] if name != "yolo" else ["cup", "cat"])
    assert (mask == expected).mean() > 0.99


def test_gaps_are_closed_and_said_once(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(JPEG)
        (tmp_path / f"{i}_mask.png").write_bytes(encoded((CUP * (15 if i else 200)).astype(np.uint8)))
    found = read_dataset(tmp_path)
    assert found.classes == ["class 15", "class 200"]
    assert [sorted(np.unique(mask)) for _, mask in found.pairs] == [[0, 2], [0, 1], [0, 1]]
    assert found.notes == ["the labels 15, 200 of the masks are the classes 1 to 2"]


def test_a_soft_edge_is_one_class_and_said_once(tmp_path):
    soft = Image.fromarray(255 * CUP.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.5))
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(JPEG)
        (tmp_path / f"{i}_mask.png").write_bytes(encoded(soft))
    found = read_dataset(tmp_path)
    assert found.classes is None and len(found.notes) == 1 and "2 masks have soft edges" in found.notes[0]
    for _, mask in found.pairs:
        assert mask.max() == 1 and ((mask == 1) & CUP).sum() / ((mask == 1) | CUP).sum() > 0.95


def test_colours_16_bits_and_arrays_are_masks_too(tmp_path):
    table = np.array([[0, 0, 0], [0, 0, 255], [255, 0, 0]], np.uint8)
    masks = {"a_mask.png": encoded(table[INDEX]), "b.npy": array_bytes(INDEX)}
    masks["c_mask.png"] = encoded(INDEX.astype(np.uint16) * 1000)
    for name, content in masks.items():
        folder = tmp_path / name[0]
        folder.mkdir()
        (folder / f"{name[0]}.jpg").write_bytes(JPEG)
        (folder / name).write_bytes(content)
        found = read_dataset(folder)
        assert np.array_equal(found.pairs[0][1], INDEX), name
    assert read_dataset(tmp_path / "c").classes == ["class 1000", "class 2000"]


def test_photos_that_an_annotation_names_and_nobody_brought_are_named(tmp_path):
    write_zip(tmp_path / "set.zip", SETS["coco"])
    assert read_dataset(tmp_path / "set.zip").problems == [
        ("other.jpg", "annotations/instances.json speaks of it, but no photo has this name; add it")
    ]


def test_a_set_of_nothing_usable_names_the_formats(tmp_path):
    write_zip(tmp_path / "set.zip", {"x.jpg": JPEG, "readme.txt": "hello"})
    with pytest.raises(ValueError, match=r"COCO, YOLO, labelme.*readme\.txt"):
        read_dataset(tmp_path / "set.zip")


@pytest.mark.parametrize(
    ("mask", "names", "expected"),
    [
        (CUP * 15, ("background", "class 15"), CUP),
        (np.where(CUP, 15, 255 * CAT), ("background", "class 15"), np.where(CUP, 1, 255 * CAT)),
        (CUP * 255, ("background", "class 1"), CUP),
        (
            np.asarray(Image.fromarray(255 * CUP.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.5))),
            ("background", "class 1"),
            None,
        ),
    ],
)
def test_arrays_of_any_labels_are_renumbered(mask, names, expected):
    (found,), classes = check_masks([np.asarray(mask).astype(np.uint8)], None)
    assert classes == names
    assert np.array_equal(found, np.asarray(mask) > 127 if expected is None else expected)


def test_a_head_learns_from_labels_with_gaps(engine):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 40, (H, W, 3), np.uint8) + 180 * CUP[..., None].astype(np.uint8)
    head = SegmentationHead(kind="linear", epochs=2, resolution=56).fit(engine, [(rgb, CUP.astype(np.uint8) * 15)])
    assert head.classes_ == ("background", "class 15")


def test_labelme_files_of_renamed_photos_are_found_by_their_stem(tmp_path):
    old = json.dumps(labelme() | {"imagePath": "..\\DSC_0001.jpg"})
    write_zip(tmp_path / "set.zip", {"a/1.jpg": JPEG, "a/1.json": old, "b/1.jpg": JPEG, "b/2.json": old})
    found = read_dataset(tmp_path / "set.zip")
    assert len(found.pairs) == 1 and ("b/1.jpg", "has no mask of the same name; add it") in found.problems
    assert any(name == "DSC_0001.jpg" and "b/2.json speaks of it" in reason for name, reason in found.problems)


def test_photos_with_boxes_only_say_so(tmp_path):
    boxes = coco([BOX])
    for one in boxes["annotations"]:
        one["segmentation"] = []
    write_zip(tmp_path / "set.zip", {"room 1.jpg": JPEG, "boxes.json": json.dumps(boxes)})
    with pytest.raises(ValueError, match=r"room 1\.jpg: boxes\.json holds only box on it; export polygons or masks"):
        read_dataset(tmp_path / "set.zip")


def test_masks_of_several_pages_and_empty_files_are_named(tmp_path):
    page, stream = Image.fromarray(INDEX), io.BytesIO()
    page.save(stream, "TIFF", save_all=True, append_images=[page])
    files = {"images/1.jpg": JPEG, "masks/1.tif": stream.getvalue(), "images/2.jpg": JPEG, "labels/2.txt": ""}
    write_zip(tmp_path / "set.zip", files | {"images/3.jpg": JPEG, "masks/3.png": encoded(INDEX)})
    problems = dict(read_dataset(tmp_path / "set.zip").problems)
    assert problems["masks/1.tif"] == "holds 2 pictures; save one mask a file"
    assert "it is empty: no object is marked" in problems["labels/2.txt"]
