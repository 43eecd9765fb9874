"""Videos in and out: what is read, what is refused and how, and that Chromium plays what is written."""

import shutil
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from dinodemo.io import video
from dinodemo.io.video import read_frames, write_video

COLOURS = ((230, 40, 30), (40, 200, 60), (30, 60, 220), (240, 240, 240))  # left top, right top, left bottom, ...
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def quarters(height: int = 48, width: int = 64) -> np.ndarray:
    """Make a picture of four colours."""
    picture = np.empty((height, width, 3), np.uint8)
    for i, colour in enumerate(COLOURS):
        top, left = i // 2 * height // 2, i % 2 * width // 2
        picture[top : top + height // 2, left : left + width // 2] = colour
    return picture


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def corners(rgb: np.ndarray) -> list[np.ndarray]:
    """Return the colours in the middle of the four quarters."""
    y, x = rgb.shape[0] // 4, rgb.shape[1] // 4
    return [rgb[j, i].astype(int) for j in (y, -y) for i in (x, -x)]


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory):
    """Give a file of 12 frames a second, 24 frames that brighten by 10 levels each; not to be changed."""
    path = tmp_path_factory.mktemp("video") / "brighter.mp4"
    return write_video(path, (grey(10 + 10 * i) for i in range(24)), 12)


def test_what_is_written_is_read_again(tmp_path):
    path = write_video(tmp_path / "four.mp4", [quarters()] * 6, 6)
    clip = read_frames(path)
    assert (len(clip), clip.fps, clip.size, clip.seconds, clip.name) == (6, 6, (48, 64), 1, "four.mp4")
    for frame in clip:
        assert frame.dtype == np.uint8 and not frame.flags.writeable
        for found, colour in zip(corners(frame), COLOURS, strict=True):
            assert np.abs(found - colour).max() <= 12  # red first, blue last
    assert [p.name for p in tmp_path.iterdir()] == ["four.mp4"]


@pytest.mark.parametrize(
    ("max_fps", "fps", "step"), [(60, 12, 1), (12, 12, 1), (11, 6, 2), (6, 6, 2), (5, 4, 3), (4, 4, 3), (1, 1, 12)]
)
def test_fast_videos_lose_frames_evenly(clip_path, max_fps, fps, step):
    clip = read_frames(clip_path, max_fps=max_fps)
    assert clip.fps == pytest.approx(fps, abs=0.01)
    levels = np.array([frame.mean() for frame in clip])
    np.testing.assert_allclose(levels, 10 + 10 * np.arange(0, 24, step), atol=5)


def test_large_frames_are_shrunk_and_small_ones_are_not(clip_path):
    assert read_frames(clip_path, max_side=32).size == (24, 32)
    assert read_frames(clip_path, max_side=64).size == (48, 64)


def turned(path, target, matrix):
    """Copy an MP4 with another display matrix in its track header."""
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 4
    assert content[start] == 0  # version 0: 4 + 20 bytes of times and ids, 16 of layer, volume and such
    content[start + 40 : start + 76] = struct.pack(">9i", *matrix)
    target.write_bytes(content)
    return target


ONE = 1 << 16
ROTATIONS = {  # which quarter lies at left top, right top, left bottom, right bottom once upright
    "a quarter right": ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), (2, 0, 3, 1)),
    "upside down": ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), (3, 2, 1, 0)),
    "a quarter left": ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), (1, 3, 0, 2)),
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_videos_from_phones_come_upright(tmp_path, name):
    matrix, order = ROTATIONS[name]
    plain = write_video(tmp_path / "plain.mp4", [quarters()] * 3, 6)
    clip = read_frames(turned(plain, tmp_path / "turned.mov", matrix))
    assert clip.size == ((48, 64) if name == "upside down" else (64, 48))
    for found, i in zip(corners(clip.frames[0]), order, strict=True):
        assert np.abs(found - COLOURS[i]).max() <= 12


def with_pixel_shape(path, target, across, down):
    """Copy an MP4 and add the shape of its pixels (`pasp`) to its description of the video."""
    content = bytearray(path.read_bytes())
    entry = content.find(b"vp09", content.find(b"stsd")) - 4
    end = entry + struct.unpack_from(">I", content, entry)[0]
    assert content.find(b"mdat") < end  # so that no place of a frame changes
    starts = [content.find(name) - 4 for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")]
    for at in (*starts, entry):
        struct.pack_into(">I", content, at, struct.unpack_from(">I", content, at)[0] + 16)
    content[end:end] = struct.pack(">I4sII", 16, b"pasp", across, down)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("ratio", "side", "size"),
    [((16, 11), 960, (48, 93)), ((10, 11), 960, (53, 64)), ((2, 1), 32, (12, 32)), ((1, 1), 960, (48, 64)),
     ((500, 1), 960, (48, 64))],
)  # fmt: skip
def test_pixels_that_are_not_square_are_made_so(tmp_path, ratio, side, size):
    plain = write_video(tmp_path / "plain.mp4", [quarters()] * 3, 6)
    clip = read_frames(with_pixel_shape(plain, tmp_path / "wide.mp4", *ratio), max_side=side)
    assert clip.size == size
    for found, colour in zip(corners(clip.frames[0]), COLOURS, strict=True):
        assert np.abs(found - colour).max() <= 12


def test_the_shape_of_pixels_is_turned_with_the_frames(tmp_path):
    plain = write_video(tmp_path / "plain.mp4", [quarters()] * 3, 6)
    wide = with_pixel_shape(plain, tmp_path / "wide.mp4", 2, 1)
    clip = read_frames(turned(wide, tmp_path / "turned.mp4", ROTATIONS["a quarter right"][0]))
    assert clip.size == (128, 48)


def test_time_stamps_that_stand_still_do_not_keep_the_reader_busy(clip_path, monkeypatch):
    monkeypatch.setattr(video, "MAX_RATE", 5)
    with pytest.raises(ValueError, match="more than 5 frames a second, or its time stamps are damaged"):
        read_frames(clip_path)


def standing_still(path, frames: int, side: int = 64):
    """Write an MP4 all of whose frames have the time 0."""
    written = bytearray(write_video(path, (grey(i % 200, side, side) for i in range(frames)), 12).read_bytes())
    at = written.index(b"stts") + 4  # then version and flags, the number of entries, and of each (frames, duration)
    for entry in range(struct.unpack_from(">I", written, at + 4)[0]):
        struct.pack_into(">I", written, at + 12 + 8 * entry, 0)
    path.write_bytes(written)
    return path


def test_a_video_whose_times_are_all_zero_is_not_read_to_its_end(tmp_path):
    path, seen = standing_still(tmp_path / "still.mp4", 700), []
    with pytest.raises(ValueError, match="480 frames a second, or its time stamps are damaged"):
        read_frames(path, report=lambda done, total, message: seen.append((done, total)))
    assert seen == [(done, None) for done in range(10, 481, 10)]


def test_reading_a_video_ends_when_whoever_is_told_says_so(tmp_path):
    def stop(done: int, total: int | None, message: str) -> None:
        assert message == f"Reading the video: {done} frames so far"
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        read_frames(standing_still(tmp_path / "still.mp4", 30), report=stop)


def test_what_a_gif_holds_for_long_is_shown_for_long(tmp_path):
    frames = [Image.fromarray(grey(level)) for level in (0, 60, 120, 180)]
    path = tmp_path / "holds.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 100, 500, 100], loop=0)
    clip = read_frames(path)
    assert clip.fps == pytest.approx(10)
    assert [int(f.mean()) for f in clip] == [0, 60, 120, 120, 120, 120, 120, 180]
    assert clip.frames[2] is clip.frames[6]


def test_webm_is_read(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "a.webm"), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"VP90"), 8, (64, 48))
    for _ in range(4):
        writer.write(quarters()[..., ::-1].copy())
    writer.release()
    clip = read_frames(tmp_path / "a.webm")
    assert len(clip) == 4 and clip.fps == pytest.approx(8)


def test_what_is_no_video_is_refused_with_what_to_do(tmp_path, clip_path):
    content = clip_path.read_bytes()
    Image.fromarray(quarters()).save(tmp_path / "one.gif")
    files = {
        "notes.mp4": (b"only text, whatever the name says", "expected MP4, MOV, WebM or GIF; export it"),
        "list.mp4": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "expected MP4"),
        "sound.wav": (b"RIFF\x24\0\0\0WAVEfmt ", "expected MP4"),
        "empty.mp4": (b"", "empty .0 bytes"),
        "cut.mp4": (content[:-400], "truncated or damaged"),
        "sound.m4a": (content.replace(b"vide\0\0\0\0", b"soun\0\0\0\0", 1), "sound only"),
        "one.gif": ((tmp_path / "one.gif").read_bytes(), "load it as a picture"),
    }
    for name, (data, sentence) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}.*{sentence}"):
            read_frames(tmp_path / name)
    with pytest.raises(ValueError, match=r"missing.mp4.*check the path"):
        read_frames(tmp_path / "missing.mp4")


def test_frames_that_cannot_be_decoded_are_told_from_no_video(tmp_path, clip_path):
    content = bytearray(clip_path.read_bytes())
    start = content.find(b"mdat") + 4
    content[start : content.find(b"moov") - 4] = b"\xff" * (content.find(b"moov") - 4 - start)
    (tmp_path / "noise.mp4").write_bytes(content)
    with pytest.raises(ValueError, match="no frame can be decoded"):
        read_frames(tmp_path / "noise.mp4")


def test_long_and_huge_videos_are_refused(clip_path, monkeypatch):
    with pytest.raises(ValueError, match=r"2 s long, at most 1 s .*cut it shorter"):
        read_frames(clip_path, max_seconds=1)
    assert len(read_frames(clip_path, max_seconds=1.9)) == 12  # a bit longer passes
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 48 * 64 - 1)
    with pytest.raises(ValueError, match=r"64x48.*scale it down"):
        read_frames(clip_path)


@pytest.mark.parametrize("options", [{"max_seconds": 0}, {"max_fps": -1}, {"max_side": 0}])
def test_limits_must_make_sense(clip_path, options):
    with pytest.raises(ValueError, match="must be positive"):
        read_frames(clip_path, **options)


@pytest.mark.parametrize("size", [(2, 2), (1, 1), (41, 61), (40, 61), (41, 60)])
def test_odd_sides_grow_by_one(tmp_path, size):
    clip = read_frames(write_video(tmp_path / "odd.mp4", [grey(90, *size)] * 2, 5))
    assert clip.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert abs(clip.frames[1].astype(int) - 90).max() <= 6


def test_a_broken_off_video_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.mp4"
    path.write_bytes(b"old")

    def frames():
        yield grey(10)
        raise KeyError("stopped")

    with pytest.raises(KeyError):
        write_video(path, frames(), 5)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["kept.mp4"]


@pytest.mark.parametrize(
    ("name", "frames", "fps", "sentence"),
    [
        ("a.avi", [grey(0)], 5, "ends in .mp4"),
        ("a.mp4", [], 5, "at least one"),
        ("a.mp4", [grey(0)], 0, "fps must be"),
        ("a.mp4", [grey(0)], float("nan"), "fps must be"),
        ("a.mp4", [grey(0)[..., 0]], 5, r"\(H, W, 3\) uint8"),
        ("a.mp4", [grey(0) / 255], 5, r"\(H, W, 3\) uint8"),
        ("a.mp4", [grey(0), grey(0, 48, 66)], 5, "frame 1 has"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, name, frames, fps, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_video(tmp_path / name, frames, fps)
    assert not list(tmp_path.iterdir())


def test_a_missing_encoder_and_a_full_disk_are_errors(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(video, "CODEC", "none")
        with pytest.raises(RuntimeError, match="install opencv-python"):
            write_video(tmp_path / "a.mp4", [grey(0)] * 3, 5)
    monkeypatch.setattr(video, "_encode", lambda path, frames, fps: 3)  # nothing arrives on the disk
    with pytest.raises(OSError, match=r"only 0 of 3 .*disk space"):
        write_video(tmp_path / "a.mp4", [grey(0)] * 3, 5)
    assert not list(tmp_path.iterdir())
