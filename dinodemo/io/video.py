"""Short videos in and out: upright RGB frames at a steady rate, and files that a browser plays."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .files import whole_file
from .resizing import fit_within, resize

MAX_SECONDS = 10.0
MAX_FPS = 10.0
MAX_SIDE = 960  # pixels
MAX_FRAME_PIXELS = 40_000_000  # 8K passes
MAX_RATE = 480  # frames a second that are looked at: time stamps may stand still or creep
TELL_EVERY = 10  # frames
WIDEST_PIXEL = 4.0  # a pixel's width over its height, or the inverse: beyond it the file is taken to be wrong
LONGER = 0.5  # seconds by which a file may exceed the limit: clips cut to a length rarely have it exactly
JITTER = 0.0015  # seconds: some containers round times to milliseconds
ACCEPTED = "MP4, MOV, WebM or GIF"
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # that a file may begin with
ADVICE = "export it as MP4 (H.264) and try again"
CODEC = "vp09"  # in MP4: free of charge, in every OpenCV from PyPI; Chromium, Firefox and Safari from 2020 play it


@dataclass(frozen=True, eq=False)
class VideoClip:
    """The frames of a short video, one every 1 / fps seconds. What stands still longer is there several times."""

    frames: tuple[np.ndarray, ...]  # each (H, W, 3) uint8 RGB, upright, read-only, all of one size
    fps: float
    name: str = "video"

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Return the frames' (H, W)."""
        return self.frames[0].shape[:2]

    @property
    def seconds(self) -> float:
        """Return how long the clip plays."""
        return len(self.frames) / self.fps


def nobody(done: int, total: int | None, message: str) -> None:
    """Take a progress that nobody looks at."""


def read_frames(
    path: str | Path,
    max_seconds: float = MAX_SECONDS,
    max_fps: float = MAX_FPS,
    max_side: int = MAX_SIDE,
    report: Callable[[int, int | None, str], None] = nobody,
) -> VideoClip:
    """Read a short video: MP4, MOV, WebM or GIF, turned upright as its metadata says, transparency ignored.

    Pixels that are not square, as DV and DVDs have them, are made so by enlarging their shorter side. The frames are
    held in memory: with the defaults at most 100 of 960 pixels, 160 MB for 16:9. A file that breaks off gives those
    before the break. High dynamic range is not mapped to the screen's.

    Args:
        path: Of the file.
        max_seconds: Longer videos are refused.
        max_fps: Of faster videos only every second, third, ... frame is kept.
        max_side: Longer sides are shrunk to so many pixels.
        report: Told every ten frames how many were looked at, of how many (not known), and in words. What it raises
            ends the reading.

    Returns:
        The frames, (H, W, 3) uint8 RGB, and their rate.

    Raises:
        ValueError: Another kind of file, sound or a picture alone, or more than `max_seconds`; says what to do.
    """
    if not (max_seconds > 0 and max_fps > 0 and max_side >= 1):
        raise ValueError(
            f"max_seconds, max_fps and max_side must be positive, got {max_seconds}, {max_fps} and {max_side}"
        )
    path = Path(path)
    _check_kind(path)
    # absolute, so that no name is taken for the address of a stream
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        _check_open(capture, path.name)
        times, frames = _decode(capture, path.name, max_seconds, 1 / max_fps - JITTER, max_side, report)
    finally:
        capture.release()
    if len(frames) < 2:
        raise ValueError(f"{path.name} holds {len(frames)} frame, a video has at least two; load it as a picture")
    order, interval = _steady(np.array(times))
    return VideoClip(tuple(frames[i] for i in order), min(1 / interval, max_fps), path.name)


def _check_kind(path: Path) -> None:
    """Accept only video containers: FFmpeg would also open playlists, which name other files and addresses."""
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({error.strerror or error}); check the path") from error
    if not head:
        raise ValueError(f"{path.name} is empty (0 bytes); copy or export it again")
    known = head[4:8] in MP4_BOXES or head.startswith((b"\x1a\x45\xdf\xa3", b"GIF8"))
    if not known:
        raise ValueError(f"{path.name} is not a video that can be read: expected {ACCEPTED}; {ADVICE}")


def _check_open(capture: cv2.VideoCapture, name: str) -> None:
    if not capture.isOpened():
        raise ValueError(f"{name} holds no readable video: it is sound only, or truncated or damaged; {ADVICE}")
    width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_FRAME_PIXELS:
        most = MAX_FRAME_PIXELS // 1_000_000
        raise ValueError(f"{name} is {width}x{height}, at most {most} million pixels are read; scale it down")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)


def _decode(
    capture: cv2.VideoCapture, name: str, max_seconds: float, gap: float, max_side: int, report: Callable
) -> tuple[list[float], list[np.ndarray]]:
    """Return times in seconds, from 0, and frames that are at least `gap` seconds apart."""
    times: list[float] = []
    frames: list[np.ndarray] = []
    start, grabbed = None, 0
    wide = _pixel_shape(capture)
    while capture.grab():
        grabbed += 1
        if grabbed % TELL_EVERY == 0:
            report(grabbed, None, f"Reading the video: {grabbed} frames so far")
        at = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        start = at if start is None else start
        if grabbed > MAX_RATE * (1 + max(0.0, at - start)):
            raise ValueError(
                f"{name} holds more than {MAX_RATE} frames a second, or its time stamps are damaged; {ADVICE}"
            )
        if at - start > max_seconds + LONGER:
            raise ValueError(_too_long(capture, name, max_seconds))
        if times and at - start < times[-1] + gap:
            continue
        done, bgr = capture.retrieve()
        if not done:
            break
        rgb = _with_square_pixels(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), wide, max_side)
        if frames and rgb.shape != frames[0].shape:
            raise ValueError(f"{name} changes its size from {_size(frames[0])} to {_size(rgb)}; {ADVICE}")
        rgb.flags.writeable = False
        times.append(at - start)
        frames.append(rgb)
    if not frames:
        raise ValueError(f"{name}: no frame can be decoded, it is damaged or its codec is not supported; {ADVICE}")
    return times, frames


def _pixel_shape(capture: cv2.VideoCapture) -> float:
    """Return how wide a pixel of the upright frames is, its height being 1."""
    across, down = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    wide = across / down if across > 0 and down > 0 else 1.0
    if capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180:  # the ratio is that of the frames as they are stored
        wide = 1 / wide
    return wide if 1 / WIDEST_PIXEL <= wide <= WIDEST_PIXEL else 1.0


def _with_square_pixels(rgb: np.ndarray, wide: float, max_side: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    across, down = max(wide, 1.0) * width, max(1 / wide, 1.0) * height
    scale = min(1.0, max_side / max(across, down))
    return fit_within(rgb, max_side) if wide == 1 else resize(rgb, (round(down * scale), round(across * scale)))


def _too_long(capture: cv2.VideoCapture, name: str, max_seconds: float) -> str:
    fps = capture.get(cv2.CAP_PROP_FPS)
    seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / fps if fps > 0 else 0
    length = f"{seconds:.0f} s" if seconds > max_seconds + LONGER else f"more than {max_seconds:g} s"
    return f"{name} is {length} long, at most {max_seconds:g} s are read; cut it shorter"


def _steady(times: np.ndarray) -> tuple[np.ndarray, float]:
    """Return which frame to show at every tick of a steady clock, and the seconds between ticks.

    Phones and GIFs have no steady rate: a frame that is shown for long is given several times, or it would rush by.
    """
    interval = float(np.median(np.diff(times)))
    ticks = np.arange(round(float(times[-1]) / interval) + 1) * interval
    return np.searchsorted(times, ticks + interval / 2, side="right") - 1, interval


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Write frames as VP9 in MP4, which browsers play. The file appears when it is whole; an older one is replaced.

    Odd sides get one more row or column, as the format stores colours for 2 x 2 pixels.

    Args:
        path: To write.
        frames: (H, W, 3) uint8 RGB of one size; of an iterator one is held at a time.
        fps: Frames a second, above 0, at most 240.

    Returns:
        The path.

    Raises:
        ValueError: There are no frames, they do not fit, or `fps` is out of range.
        RuntimeError: There is no encoder.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"{path.name}: videos are written as MP4; give a name that ends in .mp4")
    if not (math.isfinite(fps) and 0 < fps <= 240):
        raise ValueError(f"fps must be above 0 and at most 240, got {fps}")
    with whole_file(path, suffix=".mp4") as part:  # the encoder goes by the suffix
        _check_written(part, _encode(part, frames, fps))
    return path


def _encode(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    writer, size, count = None, None, 0
    try:
        for frame in frames:
            _check_frame(frame, size, count)
            size = frame.shape
            if writer is None:
                writer = _open_writer(path, size[1] + size[1] % 2, size[0] + size[0] % 2, fps)
            bgr = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
            writer.write(cv2.copyMakeBorder(bgr, 0, size[0] % 2, 0, size[1] % 2, cv2.BORDER_REPLICATE))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if not count:
        raise ValueError("no frames were given; a video needs at least one")
    return count


def _open_writer(path: Path, width: int, height: int, fps: float) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), fps, (width, height))
    if not writer.isOpened():
        raise RuntimeError(
            f"OpenCV {cv2.__version__} cannot encode VP9 at {width}x{height}; install opencv-python from PyPI"
        )
    return writer


def _check_frame(frame: np.ndarray, size: tuple[int, ...] | None, number: int) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise ValueError(f"frames must be (H, W, 3) uint8 RGB, frame {number} is {frame.shape} {frame.dtype}")
    if size is not None and frame.shape != size:
        raise ValueError(f"all frames must have the first one's shape {size}, frame {number} has {frame.shape}")


def _check_written(path: Path, count: int) -> None:
    """Raise OSError when the file does not hold so many frames: OpenCV does not say that a disk was full."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    if written != count:
        raise OSError(f"only {written} of {count} frames were written; free some disk space and try again")


def _size(rgb: np.ndarray) -> str:
    return f"{rgb.shape[1]}x{rgb.shape[0]}"
