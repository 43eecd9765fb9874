"""The index: adding, searching, following moved photos; with a tiny random network."""

import time
import zipfile

import numpy as np
import pytest
from photo_folders import CLASSES, SIDE, encode
from PIL import Image

from dinodemo.io.images import load_image, load_photo
from dinodemo.tasks.retrieval import AddReport, Filter, ImageIndex, writing
from dinodemo.tasks.retrieval.ranking import Whitening, score
from dinodemo.tasks.retrieval.snapshot import Snapshot


def test_adding_a_folder_reports_what_came_of_each_photo(index, folder):
    told = []
    report = index.add(folder, progress=lambda *step: told.append(step))
    assert (report.added, report.skipped, report.stopped) == (9, 1, False)
    problems = {name.rsplit("/", 1)[-1]: reason for name, reason in report.problems}
    assert set(problems) == {"broken.jpg", "notes.txt"}
    assert "not a picture" in problems["broken.jpg"] and "no photo" in problems["notes.txt"]
    assert told[-1] == (11, 11)  # notes.txt was never a photo
    assert len(index) == 9
    statistics = index.statistics()
    assert statistics.labels == CLASSES and statistics.count == 9 and statistics.search == "exact"
    files = [path for path in folder.rglob("*.png") if path.name not in ("twin.png", ".hidden.png")]
    assert statistics.photo_bytes == sum(path.stat().st_size for path in files)
    assert statistics.recipe.resolution == SIDE and statistics.recipe.backbone == index.engine.backbone.name


def test_a_photo_finds_itself_first_with_all_that_a_page_shows(filled, folder):
    first, second = filled.search(folder / "loose.png", k=2)
    assert first.path == (folder / "loose.png").as_posix() and first.label is None
    assert first.size == (100, 80) and first.nbytes == (folder / "loose.png").stat().st_size
    assert first.cosine == pytest.approx(1, abs=1e-5)
    assert first.score > second.score
    assert load_image(first.thumbnail).shape == (100, 80, 3)
    assert first.region is None
    assert (filled.photo(first.sha256).rgb == load_image(folder / "loose.png")).all()


def test_the_order_is_that_of_a_slow_search(filled, folder):
    entries, vectors = filled.gallery()
    query = filled.describe(folder / "dog" / "1.png")
    whitening = Whitening.fit(vectors)
    scores = score(whitening.apply(query), whitening.apply(vectors), expand=2)
    hits = filled.search(folder / "dog" / "1.png", k=99)
    assert [hit.sha256 for hit in hits] == [entries[i].sha256 for i in np.argsort(-scores)]
    assert np.allclose([hit.score for hit in hits], np.sort(scores)[::-1], atol=1e-5)
    plain = ImageIndex(filled.path, filled.engine, ranking="cosine").search(folder / "dog" / "1.png", k=99)
    assert np.allclose([hit.score for hit in plain], np.sort(vectors @ query)[::-1], atol=1e-5)


def test_vectors_are_the_class_tokens_of_the_squashed_photos(filled, folder):
    entries, vectors = filled.gallery()
    for entry, vector in zip(entries, vectors, strict=True):
        square = Image.open(entry.path).resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
        cls = filled.engine.features(np.asarray(square), resolution=SIDE).cls
        assert np.allclose(vector, cls / np.linalg.norm(cls), atol=1e-5)


@pytest.mark.parametrize("descriptor", ["cls11", "gem", "cls+gem", "cls+cls11"])
def test_every_descriptor_makes_an_index(tmp_path, engine, folder, descriptor):
    index = ImageIndex(tmp_path / "index", engine, SIDE, descriptor)
    assert index.add(folder).added == 9
    _, vectors = index.gallery()
    assert vectors.shape == (9, 32 * (1 + descriptor.count("+")))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert index.search(folder / "cat" / "2.png", k=1)[0].path.endswith("cat/2.png")
    (before, _), (cls, patches) = engine.layers(
        np.asarray(
            Image.open(folder / "cat" / "2.png").resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
        ),
        (-2, -1),
        resolution=SIDE,
    )
    gem = (np.clip(patches, 1e-6, None) ** 3).mean(axis=(0, 1)) ** (1 / 3)
    parts = {"cls": cls, "cls11": before, "gem": gem}
    joined = np.concatenate([parts[p] / np.linalg.norm(parts[p]) for p in descriptor.split("+")])
    assert np.allclose(index.describe(folder / "cat" / "2.png"), joined / np.linalg.norm(joined), atol=1e-5)


def test_what_is_known_is_skipped_unread_and_a_changed_file_is_not(filled, folder, monkeypatch):
    assert filled.add(folder).skipped == 10  # the twin's content is known, though not its path
    assert len(filled) == 9
    (folder / "loose.png").write_bytes((folder / "dog" / "0.png").read_bytes())
    assert filled.add(folder / "loose.png").skipped == 1
    (folder / "loose.png").write_bytes(encode(load_image(folder / "dog" / "0.png")[::-1]))
    assert filled.add([folder / "loose.png"]).added == 1
    assert len(filled) == 9  # the row of what lay there before is gone


def test_stopping_keeps_what_is_done_and_the_next_call_goes_on(index, folder, monkeypatch):
    monkeypatch.setattr(writing, "COMMIT_ROWS", 1)
    told = []
    report = index.add(folder, progress=lambda done, _: told.append(done), stopped=lambda: len(told) >= 2)
    assert report.stopped and 1 <= report.added <= 2
    assert len(index) == report.added
    rest = index.add(folder)
    assert rest.added == 9 - report.added and not rest.stopped


def test_zips_bytes_and_lists(index, folder, tmp_path, make_picture):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in (folder / "cat").iterdir():
            archive.write(path, f"set/cat/{path.name}")
        archive.writestr("../outside.png", encode(make_picture(seed=70)))
        archive.writestr("__MACOSX/x.png", b"")
    upload = ("from a phone.png", encode(make_picture(seed=71)))
    report = index.add([tmp_path / "set.zip", folder / "loose.png", upload, folder / "dog"])
    assert (report.added, report.skipped) == (3 + 1 + 1 + 3, 1)
    assert [reason for _, reason in report.problems] == ["its path leads out of the archive; not read"]
    entries = {entry.path: entry for entry in index.gallery()[0]}
    inside = entries[f"{(tmp_path / 'set.zip').as_posix()}/set/cat/1.png"]
    assert inside.label == "cat"
    assert entries["from a phone.png"].label is None
    assert entries[(folder / "dog" / "0.png").as_posix()].label is None  # the folder that was given is no class
    assert (index.photo(inside.sha256).rgb == load_image(folder / "cat" / "1.png")).all()
    assert (index.photo(entries["from a phone.png"].sha256).rgb == make_picture(seed=71)).all()


def test_photos_kept_in_the_index_need_no_file(index, folder):
    index.add(folder, store=True)
    expected = load_image(folder / "cat" / "0.png")
    (hit,) = index.search(folder / "cat" / "0.png", k=1)
    (folder / "cat" / "0.png").unlink()
    assert (index.photo(hit.sha256).rgb == expected).all()


def test_a_photo_that_is_gone_is_named(filled, folder):
    (hit,) = filled.search(folder / "dog" / "0.png", k=1)
    (folder / "dog" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"dog/0\.png is gone; put it back"):
        filled.photo(hit.sha256)
    with pytest.raises(ValueError, match="it was removed"):
        filled.photo("0" * 64)


def test_large_jpegs_are_decoded_small_and_stay_upright(index, tmp_path, make_picture):
    exif = Image.Exif()
    exif[274] = 6  # turn by a quarter
    Image.fromarray(make_picture(900, 1400)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    index.add(tmp_path / "turned.jpg")
    (hit,) = index.search(tmp_path / "turned.jpg", k=1)
    assert hit.size == load_photo(tmp_path / "turned.jpg").size == (1400, 900)
    assert load_image(hit.thumbnail).shape == (192, 123, 3)
    assert hit.cosine > 0.999  # the query was decoded in full


def test_filters_by_label_and_path(filled, folder):
    query = folder / "cat" / "0.png"
    assert {h.label for h in filled.search(query, 99, where=Filter(labels=("dog", "it's a bird")))} == {
        "dog",
        "it's a bird",
    }
    assert [h.path.rsplit("/", 2)[1] for h in filled.search(query, 99, where=Filter(path="IT'S A"))] == [
        "it's a bird"
    ] * 2
    both = Filter(labels=("dog",), path="1.png")
    (hit,) = filled.search(query, 99, where=both)
    assert hit.path.endswith("dog/1.png")
    assert filled.search(query, where=Filter(labels=("fish",))) == []
    large = Snapshot(filled._store, filled._store.open().version, exact_rows=0)  # filters in SQL
    vector = filled.describe(query)
    for where in (both, Filter(labels=("it's a bird",)), Filter(path="it's a")):
        expected = [hit.sha256 for hit in filled.search(query, 99, where=where)]
        assert [row["sha256"] for row in large.nearest(vector, 9, where)] == expected


def test_a_region_is_searched_for_and_outlined(index, tmp_path, make_picture):
    patch, scene = make_picture(60, 60, seed=5), make_picture(180, 180, seed=6).copy()
    (tmp_path / "patch.png").write_bytes(encode(patch))
    (tmp_path / "other.png").write_bytes(encode(make_picture(60, 60, seed=9)))
    index.add([tmp_path / "patch.png", tmp_path / "other.png"])
    scene[100:160, 20:80] = patch
    first, second = index.search(scene, region=(20, 100, 80, 160))
    assert first.path.endswith("patch.png") and first.cosine == pytest.approx(1, abs=1e-4)
    for hit in (first, second):
        x0, y0, x1, y1 = hit.region
        assert 0 <= x0 < x1 <= 60 and 0 <= y0 < y1 <= 60
    (tmp_path / "other.png").unlink()
    assert [hit.region is None for hit in index.search(scene, region=(80, 160, 20, 100))] == [False, True]
    with pytest.raises(ValueError, match="covers too little of the 180 x 180 picture"):
        index.search(scene, region=(200, 10, 300, 90))


def test_reranking_looks_at_patches_and_puts_photos_that_are_gone_last(filled, folder):
    query = folder / "cat" / "1.png"
    hits = filled.search(query, k=4, rerank=True)
    assert len(hits) == 4 and hits[0].path.endswith("cat/1.png") and hits[0].score <= 1
    (folder / "cat" / "1.png").rename(folder / "moved.png")
    assert filled.search(folder / "moved.png", k=9, rerank=True)[-1].path.endswith("cat/1.png")


def test_removing_by_path_folder_and_sha256(filled, folder):
    sha256 = filled.search(folder / "loose.png", k=1)[0].sha256
    assert filled.remove(sha256) == 1
    assert filled.remove([str(folder / "it's a bird"), str(folder / "cat" / "1.png"), "nothing"]) == 3
    assert sorted(e.path.removeprefix(f"{folder}/") for e in filled.gallery()[0]) == [
        "cat/0.png",
        "cat/2.png",
        "dog/0.png",
        "dog/1.png",
        "dog/2.png",
    ]
    assert (folder / "loose.png").exists()
    assert filled.add(folder).added == 4  # what was removed may come back


def test_renaming_follows_a_photo_or_a_folder(filled, folder):
    (folder / "it's a bird").rename(folder / "what's this")
    assert filled.rename(str(folder / "it's a bird"), str(folder / "what's this")) == 2
    assert filled.rename(str(folder / "loose.png"), "/elsewhere/x.png") == 1
    (hit,) = filled.search(folder / "what's this" / "1.png", k=1)
    assert hit.path == (folder / "what's this" / "1.png").as_posix()
    assert filled.photo(hit.sha256).size == hit.size
    assert filled.search(folder / "loose.png", k=1)[0].path == "/elsewhere/x.png"


def test_hits_get_labels(filled, folder):
    hits = filled.search(folder / "loose.png", k=3)
    assert filled.label([hit.sha256 for hit in hits], " it's mine ") == 3
    assert {hit.label for hit in filled.search(folder / "loose.png", k=3)} == {"it's mine"}
    assert filled.label([hits[0].sha256], "") == 1 and filled.label([], "x") == 0
    assert filled.search(folder / "loose.png", k=1)[0].label is None


def test_an_index_that_is_not_there_writes_nothing_and_says_so(tmp_path, engine, make_picture):
    index = ImageIndex(tmp_path / "new", engine)
    assert len(index) == 0 and index.recipe is None and index.statistics().count == 0
    assert index.remove(["x"]) == index.rename("x", "y") == 0
    with pytest.raises(ValueError, match="holds no index yet; add photos first"):
        index.search(make_picture())
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="does not exist; give a folder, a zip or photos"):
        index.add(tmp_path / "nothing")
    assert not (tmp_path / "new").exists()


def test_wrong_arguments_are_named(tmp_path, engine, filled, folder):
    with pytest.raises(ValueError, match="descriptor must be one of cls, cls11"):
        ImageIndex(tmp_path / "new", engine, descriptor="clss").add(folder)
    with pytest.raises(ValueError, match="ranking must be one of whitened, cosine"):
        ImageIndex(tmp_path / "new", engine, ranking="best")
    with pytest.raises(ValueError, match="resolution must lie between 28 and 4096"):
        ImageIndex(tmp_path / "new", engine, resolution=8).add(folder)
    with pytest.raises(ValueError, match="k must be at least 1"):
        filled.search(folder / "loose.png", k=0)


def test_what_is_committed_is_told_in_time(index, folder, monkeypatch):
    monkeypatch.setattr(writing, "COMMIT_SECONDS", 0.0)
    told = []
    index.add(folder, progress=lambda done, _: told.append((done, time.monotonic())))
    assert len(told) >= 9 and [done for done, _ in told] == sorted(done for done, _ in told)


def test_duplicates_clusters_and_the_map_name_photos(filled, folder):
    (folder / "again.png").write_bytes(encode(load_image(folder / "cat" / "0.png"), "TIFF"))
    filled.add(folder / "again.png")
    (group,) = filled.near_duplicates(0.99999)
    assert sorted(entry.path.rsplit("/", 1)[-1] for entry in group) == ["0.png", "again.png"]
    assert sum(len(cluster) for cluster in filled.clusters(3)) == 10
    entries, places = filled.map2d()
    assert len(entries) == 10 and places.shape == (10, 2)


def test_an_empty_report_is_one_of_nothing():
    assert AddReport() == AddReport(0, 0, [], False)
