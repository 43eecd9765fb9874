"""What was painted under which name: references of the wanted thing, of others, and classes of a head."""

import numpy as np
import pytest

from dinodemo.io.images import Photo
from dinodemo.tasks.segmentation.draw import Reference
from dinodemo.tasks.segmentation.search_tab import DEFAULT_NAME, clean_name, fit, gather
from dinodemo.tasks.segmentation_head.tab import painted_pairs


def reference(name: str, column: int, shade: int = 90) -> Reference:
    photo = Photo(np.full((6, 8, 3), shade, np.uint8), f"{shade}.jpg")
    mask = np.zeros((6, 8), bool)
    mask[2:4, column : column + 2] = True
    return Reference(photo, mask, np.zeros((6, 8), bool), name)


def test_only_references_of_the_name_are_wanted():
    cup, spoon = reference("cup", 0), reference("spoon", 4)
    assert gather((cup, spoon), {}, None, " cup ") == ([cup], [spoon])


def test_a_name_that_nothing_was_painted_under_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="under the name plate; painted so far: cup, spoon"):
        gather((reference("cup", 0), reference("spoon", 4)), {}, None, "plate")


@pytest.mark.parametrize(("given", "clean"), [("  my   cup ", "my cup"), ("", DEFAULT_NAME), (None, DEFAULT_NAME)])
def test_names_lose_needless_spaces(given, clean):
    assert clean_name(given) == clean


def test_other_things_are_searched_as_not_this(make_engine):
    class Pool:
        def get(self, name):
            return make_engine("dinov2")

    services = type("Services", (), {"pool": Pool()})()
    segmenter = fit(services, [reference("cup", 0)], [reference("spoon", 4)], "any", 28)
    assert segmenter.memory_.negative.any()
    assert not fit(services, [reference("cup", 0)], [], "any", 28).memory_.negative.any()


def test_every_name_is_a_class_and_a_photo_has_one_mask():
    kept = (reference("cup", 0), reference("spoon", 4), reference("cup", 2, shade=50))
    pairs, names = painted_pairs(kept)
    assert names == ["cup", "spoon"]
    assert [photo.name for photo, _ in pairs] == ["90.jpg", "50.jpg"]
    np.testing.assert_array_equal(pairs[0][1][2], [1, 1, 0, 0, 2, 2, 0, 0])
    np.testing.assert_array_equal(pairs[1][1][2], [0, 0, 1, 1, 0, 0, 0, 0])
