"""The anomalies tab's steps without a browser: learn, check, accept, load, and what it says on the way."""

import numpy as np
import pytest
from PIL import Image

from dinodemo.engine.pool import EnginePool
from dinodemo.tasks.anomaly import session_tab, tab
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings

SETTINGS = ("none", "auto")
LOOK = (1.0, "Heat map", 0.5)


@pytest.fixture
def services(tiny_folder):
    return Services(Settings(backbone=str(tiny_folder)), EnginePool("cpu", "float32"))


@pytest.fixture
def photos(tmp_path, make_picture):
    """Give paths: four good photos, one to check that is good, one with a spot, one that cannot be read."""
    paths = []
    for seed in range(6):
        rgb = make_picture(96, 128).astype(int) + np.random.default_rng(seed).integers(-6, 7, (96, 128, 3))
        if seed == 5:
            rgb[24:48, 64:96] = (0, 255, 0)
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8)).save(paths[-1])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [str(path) for path in (*paths, tmp_path / "broken.png")]


def learn(services, paths, before=None, resolution=112, settings=SETTINGS):
    return list(session_tab.learn(services, paths, before, services.settings.backbone, resolution, *settings))


@pytest.fixture
def learned(services, photos):
    return learn(services, photos[:4])[-1][0]


def check(services, learned, paths):
    return list(session_tab.check(services, learned, paths, None))


def test_learning_tells_its_progress_and_what_came_of_it(services, photos):
    steps = learn(services, photos[:4])
    assert steps[0][1] == "Good photo 1 of 4" and len(steps) == 5
    found, words, _ = steps[-1]
    assert "Learned from 4 good photos" in words and "at 112 px" in words and "⚠️" not in words
    again = learn(services, photos[:4], found)
    assert len(again) == 1 and again[0][0] != found and not isinstance(again[0][0], session_tab.Learned)  # skipped
    assert len(learn(services, photos[:4], found, settings=("flips", "auto"))) == 5  # another setting learns again
    assert learn(services, [], found)[-1][0] is None


def test_photos_that_cannot_be_read_are_named(services, photos, learned):
    with pytest.raises(ValueError, match="none of the good photos can be read"):
        learn(services, photos[6:])
    found = check(services, learned, photos[4:])[-1][0]
    assert len(found.checked) == 2 and "Left out: broken.png" in found.status(1.0)


def test_checked_photos_are_sorted_and_counted(services, photos, learned):
    steps = check(services, learned, photos[4:6])
    assert steps[0][1] == "Checking photo 1 of 2"
    found = steps[-1][0]
    assert [one.photo.name for one in found.checked] == ["5.png", "4.png"]
    line = sum(one.result.score for one in found.checked) / 2
    status, picture, thumbs, *_ = tab.show_all(found, line, *LOOK[1:])
    assert status == "**1 anomaly**, 1 good, of 2 photos." and picture["label"].startswith("anomaly · ")
    assert [caption.split(" · ")[0] for _, caption in thumbs] == ["anomaly", "good"]
    assert tab.show_line(found.at(1), 2 * line, *LOOK[1:])[1]["label"].startswith("good · ")
    assert found.at(99) is found


def test_without_good_photos_or_photos_to_check_the_tab_says_what_is_missing(services, photos, learned):
    assert check(services, None, photos[4:])[-1][1] == session_tab.EMPTY
    assert check(services, learned, [])[-1][1] == "Now drop photos to check."
    assert tab.show_all(None, *LOOK)[2] == []
    for call in (lambda: tab._csv_file(None, 1.0), lambda: tab._set_file(None)):
        with pytest.raises(ValueError, match="nothing was"):
            call()
    with pytest.raises(ValueError, match="no checked photo yet"):
        list(session_tab.accept(services, learned, None))


def test_a_clicked_spot_says_which_good_photo_is_nearest(services, photos, learned):
    found = check(services, learned, photos[3:5])[-1][0]
    index = next(i for i, one in enumerate(found.checked) if one.photo.name == "3.png")  # one of the good ones itself
    picture, sentence = found.at(index).why((200, 100), 1.0)
    assert picture.ndim == 3 and "on 3.png: 0.00 × the line" in sentence


def test_an_accepted_photo_is_good_from_then_on(services, photos, learned):
    found = check(services, learned, photos[4:6])[-1][0]
    *_, (now, words, after, _, _) = session_tab.accept(services, learned, found)
    assert "5 good photos" in words and after.checked[after.selected].photo.name == "5.png"
    assert after.checked[after.selected].result.score == pytest.approx(0, abs=1e-3)
    assert len(learned.detector.names_) == 4 and len(now.detector.names_) == 5  # what was there before stays


def test_a_saved_set_is_loaded_and_another_backbone_asked_for(services, photos, learned, tmp_path):
    path = tmp_path / "set.safetensors"
    path.write_bytes(tab._set_file(learned)[1])
    loaded, words, _ = session_tab.load_set(services, str(path), services.settings.backbone)
    assert "Learned from 4 good photos" in words
    assert check(services, loaded, photos[5:6])[-1][0].checked[0].result.score > 1
    (step,) = session_tab.learn(services, [], loaded, "other", 112, *SETTINGS)
    assert step[0] is None and "belongs to" in step[1]
    (step,) = session_tab.learn(services, [], loaded, services.settings.backbone, 252, *SETTINGS)
    assert step[0] is loaded
