"""An index and the network that made it: another backbone, other weights, rebuilding, following."""

import dataclasses

import pytest
from photo_folders import SIDE

from dinodemo.tasks.retrieval import ImageIndex, writing
from dinodemo.tasks.retrieval.store import Recipe


def test_another_backbones_engine_is_refused_with_the_remedy(filled, folder, make_engine):
    other = make_engine("dinov3")
    stranger = ImageIndex(filled.path, other)
    for call in (lambda: stranger.search(folder / "loose.png"), lambda: stranger.add(folder)):
        with pytest.raises(ValueError, match=r"was made with .*dinov2.*the engine runs .*dinov3.*rebuild the index"):
            call()
    with pytest.raises(ValueError, match="without an engine can only be looked at"):
        ImageIndex(filled.path).search(folder / "loose.png")
    with pytest.raises(ValueError, match=f"was made with resolution {SIDE}, not 224"):
        ImageIndex(filled.path, filled.engine, resolution=224)


def test_other_weights_of_the_same_name_are_refused_until_it_is_rebuilt(filled, folder, make_engine):
    engine = make_engine()
    assert filled.recipe.identity == engine.identity.to_json()
    engine.identity = dataclasses.replace(engine.identity, sha256="0" * 64)
    other = ImageIndex(filled.path, engine)
    for call in (lambda: other.search(folder / "loose.png"), lambda: other.add(folder)):
        with pytest.raises(ValueError, match="the same name, but other weights; rebuild the index"):
            call()
    assert other.rebuild(engine).added == 9 and other.search(folder / "loose.png", k=1) and other.doubt == ""


def test_an_index_without_an_identity_is_opened_with_a_warning(tmp_path, folder, make_engine, monkeypatch, caplog):
    engine = make_engine()
    monkeypatch.setattr(writing, "Recipe", lambda *parts: Recipe(*parts[:4]))  # as version 0.1 made it
    old = ImageIndex(tmp_path / "old", engine, SIDE)
    old.add(folder)
    assert old.recipe.identity == "" and old.search(folder / "loose.png", k=1)
    assert "records no checksum" in old.doubt and "rebuild the index" in old.statistics().note
    assert caplog.text.count("records no checksum") == 1
    monkeypatch.undo()
    old.rebuild(engine)
    assert old.recipe.identity and old.search(folder / "loose.png", k=1) and old.doubt == ""


def test_rebuilding_with_another_backbone(filled, folder, make_engine, monkeypatch):
    monkeypatch.setattr(writing, "COMMIT_ROWS", 1)
    other = make_engine("dinov3")
    (folder / "dog" / "0.png").unlink()
    told = []
    report = filled.rebuild(other, progress=lambda done, _: told.append(done), stopped=lambda: len(told) >= 3)
    assert report.stopped
    assert filled.recipe.backbone == filled.engine.backbone.name != other.backbone.name  # still the old one
    assert len(filled.search(folder / "loose.png", k=99)) == 9
    gone = filled.search(folder / "cat" / "1.png", k=1)[0].sha256
    filled.remove(gone)  # while the rebuild waits
    rest = filled.rebuild(other)
    assert [name.rsplit("/", 2)[1:] for name, _ in rest.problems] == [["dog", "0.png"]]
    assert rest.added < 9
    assert filled.recipe.backbone == other.backbone.name and filled.recipe.resolution == 64  # whole patches of 16
    assert len(filled) == 7 and gone not in [e.sha256 for e in filled.gallery()[0]]
    assert filled.search(folder / "loose.png", k=1)[0].cosine == pytest.approx(1, abs=1e-5)
    assert filled.statistics().labels == {"cat": 2, "dog": 2, "it's a bird": 2}
    assert ImageIndex(filled.path, other).add(folder / "loose.png").skipped == 1


def test_a_rebuild_without_any_photo_left_changes_nothing(filled, folder, make_engine):
    before = filled.recipe
    folder.rename(folder.parent / "unplugged")
    with pytest.raises(RuntimeError, match="none of the 9 photos can be read any more"):
        filled.rebuild(make_engine("dinov3"))
    assert len(filled) == 9 and filled.recipe == before


def test_an_index_follows_another_with_a_backbone_of_its_own(tmp_path, filled, folder, make_engine):
    twin, told = ImageIndex(tmp_path / "twin", make_engine("dinov3"), filled.recipe.resolution), []
    assert twin.follow(filled, lambda *done: told.append(done)).added == 9 and told[-1] == (9, 9)
    assert {e.sha256 for e in twin.gallery()[0]} == {e.sha256 for e in filled.gallery()[0]}
    assert twin.recipe.backbone != filled.recipe.backbone
    gone = filled.search(folder / "cat" / "1.png", k=1)[0].sha256
    filled.remove(gone)
    filled.add(("new.png", (folder / "loose.png").read_bytes() + b"more"))
    assert twin.follow(filled).added == 1
    assert {e.sha256 for e in twin.gallery()[0]} == {e.sha256 for e in filled.gallery()[0]}
    assert twin.search(folder / "loose.png", k=1)[0].cosine == pytest.approx(1, abs=1e-5)
