"""A thing painted on a photo is followed through a video; the result plays in the browser and downloads."""

import base64
import io
import zipfile

import numpy as np
from PIL import Image

from dinodemo.io.images import load_image
from dinodemo.io.video import read_frames, write_video

from .helpers import download
from .test_segmentation_tab import FOLDER, drop_reference, iou

FRAMES = 4
PLAY = """async source => {
    const video = Object.assign(document.createElement("video"), {muted: true, src: source});
    document.body.append(video);
    await new Promise((done, fail) => {
        video.onloadeddata = done;
        video.onerror = () => fail(new Error(video.error.code + " " + video.error.message));
    });
    await video.play();
    await new Promise(done => video.onended = done);
    const canvas = Object.assign(document.createElement("canvas"),
                                 {width: video.videoWidth, height: video.videoHeight});
    canvas.getContext("2d").drawImage(video, 0, 0);
    return {ready: video.readyState, seconds: video.duration, png: canvas.toDataURL("image/png").split(",")[1]};
}"""


def moving_cup(path) -> list[np.ndarray]:
    """Write a video that pans over the cup among dandelions; returns the true masks."""
    rgb, mask = (load_image(FOLDER / f"cup_and_dandelions{end}") for end in (".jpg", "_mask.png"))
    starts = np.linspace(0, rgb.shape[1] - 700, FRAMES).astype(int)
    write_video(path, [rgb[:, x : x + 700] for x in starts], 5)
    return [mask[:, x : x + 700, 0] > 127 for x in starts]


def test_a_painted_thing_is_followed_through_a_video(page, tmp_path, screenshot):
    truths = moving_cup(tmp_path / "cup.mp4")
    page.get_by_role("tab", name="Segmentation").click()
    drop_reference(page)
    page.get_by_text("Or upload a mask for this photo").click()
    page.set_input_files("#seg-mask-file input[type=file]", str(FOLDER / "cup_mask.png"))
    page.wait_for_timeout(1500)
    page.get_by_role("tab", name="In a video").click()
    page.set_input_files("#video-file input[type=file]", str(tmp_path / "cup.mp4"))
    page.click("#video-start")
    page.wait_for_selector(f"#video-status >> text=Found in {FRAMES} of {FRAMES} frames")
    page.wait_for_function(
        "() => { const v = document.querySelector('#video-result video');"
        " return v && v.readyState >= 2 && v.videoWidth == 700 && !v.error }"
    )
    screenshot(page, "video")
    _, content = download(page, "#video-zip")
    archive = zipfile.ZipFile(io.BytesIO(content))
    for name, truth in zip(sorted(archive.namelist()), truths, strict=True):
        assert iou(np.asarray(Image.open(io.BytesIO(archive.read(name)))) > 127, truth) > 0.7
    name, content = download(page, "#video-mp4")
    assert name == "cup-followed.mp4"
    (tmp_path / name).write_bytes(content)
    assert len(read_frames(tmp_path / name)) == FRAMES


def test_a_file_that_is_no_video_is_refused_and_the_drawing_stays(page, tmp_path):
    (tmp_path / "fake.mp4").write_bytes(b"no video at all")
    page.get_by_role("tab", name="Segmentation").click()
    page.click("#seg-example")
    page.wait_for_function("() => document.querySelector('#seg-painter canvas.mask')?.width > 300")
    page.get_by_role("tab", name="In a video").click()
    page.set_input_files("#video-file input[type=file]", str(tmp_path / "fake.mp4"))
    page.click("#video-start")
    page.wait_for_selector("text=is not a video that can be read")
    page.wait_for_selector("#video-status >> text=Not followed")


def test_a_written_video_plays_in_its_colours(browser, tmp_path):
    colours = np.array([[(230, 40, 30), (40, 200, 60)], [(30, 60, 220), (240, 240, 240)]], np.uint8)
    path = write_video(tmp_path / "four.mp4", [colours.repeat(120, axis=0).repeat(160, axis=1)] * 4, 8)
    source = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    page = browser.new_page()
    result = page.evaluate(PLAY, source)
    page.close()
    assert result["ready"] >= 2 and abs(result["seconds"] - 0.5) < 0.01
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["png"]))).convert("RGB")).astype(int)
    assert shown.shape == (240, 320, 3)
    assert np.abs(shown[60::120, 80::160] - colours).max() <= 8
