"""What tabs open with: prepared once, a failure stops nothing, and a person's own photos go first."""

import numpy as np
import pytest
from PIL import Image

from dinodemo.engine.pool import EnginePool
from dinodemo.io.images import Photo
from dinodemo.tasks.retrieval.index_store import EXAMPLES, IndexStore, free_photos
from dinodemo.web.openings import Openings, photos_to_show
from dinodemo.web.owner import new_owner
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings, parse


@pytest.fixture
def photos(tmp_path):
    """Two photos and the path of an example."""
    rng = np.random.default_rng(0)
    made = [Photo(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), f"{i}.png") for i in range(2)]
    Image.fromarray(made[0].rgb).save(tmp_path / "example.png")
    return *made, tmp_path / "example.png"


def test_a_job_that_fails_is_told_and_the_others_go_on(tmp_path, caplog):
    openings, done = Openings(folder=tmp_path), []

    def fail(backbone):
        raise RuntimeError("no memory")

    for job in (done.append, fail, done.append):
        openings.add(job)
    openings.prepare("a-backbone")
    assert done == ["a-backbone"] * 2 and "no memory" in caplog.text


def test_nothing_is_prepared_where_examples_are_off(tmp_path):
    openings = Openings(on=False, folder=tmp_path)
    openings.add(lambda backbone: pytest.fail("a job ran"))
    openings.prepare("a-backbone")
    assert parse([]).examples and not parse(["--no-examples"]).examples
    assert not Services(Settings(examples=False), None).openings.on


def test_own_photos_go_before_the_latest_and_that_before_the_example(photos):
    first, second, example = photos
    assert photos_to_show(second, [first], given=True, opening=[example]) == (None, False)
    assert photos_to_show(second, [first], given=False, opening=[example]) == ([second], False)
    assert photos_to_show(second, [second], given=False, opening=[example]) == (None, False)
    taken, is_example = photos_to_show(None, [], given=False, opening=[example])
    assert [p.digest for p in taken] == [first.digest] and is_example
    assert photos_to_show(None, [first], given=False, opening=[example]) == (None, False)
    assert photos_to_show(None, [], given=False, opening=[]) == (None, False)


def test_the_index_of_examples_can_be_searched_but_not_changed(tmp_path, tiny_folder):
    services = Services(Settings(backbone=str(tiny_folder)), EnginePool("cpu"))
    object.__setattr__(services, "openings", Openings(folder=tmp_path / "examples"))
    store, owner = IndexStore(services, tmp_path / "private"), new_owner()
    assert store.choices(owner) == []
    store.make_examples(str(tiny_folder))
    ((label, key),) = store.choices(owner)
    assert label == f"{EXAMPLES} · example"
    hits = store.open(owner, key).search(free_photos()[0][1], k=3)
    assert hits[0].path == free_photos()[0][0] and len(hits) == 3
    with pytest.raises(ValueError, match="cannot be changed"):
        store.check_may_change(key)
    again = IndexStore(services, tmp_path / "private")
    again.make_examples(str(tiny_folder))  # nothing is computed anew
    assert len(again.open(owner, key)) == len(free_photos())
