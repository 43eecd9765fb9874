"""In a video: what was painted is followed through a short clip; an overlaid MP4 and a mask a frame come out."""

import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from ...io.files import stem
from ...io.render import png_bytes
from ...io.video import MAX_FPS, MAX_SECONDS, VideoClip, read_frames, write_video
from ...web.background import Stopped, Work
from ...web.components import download_button, option_control, write_download
from ...web.errors import friendly
from ...web.events import ENGINE_QUEUE, QUIET
from ...web.header import Header
from ...web.services import Services
from . import propagate
from .draw import OPACITY, paint_mask
from .references import fit
from .search_tab import gather

if TYPE_CHECKING:
    from . import ReferenceSegmenter

HELP = (
    "Paint the object under *Find by reference*, on a frame of the video or on any other photo, then drop a video of "
    f"at most {MAX_SECONDS:g} seconds. {MAX_FPS:g} frames a second are looked at, and each costs what a photo costs: a "
    "lower resolution above is faster."
)


@dataclass(frozen=True)
class Followed:
    """Represent a finished video: the overlaid file, the zip of masks, and in how many frames the object was found."""

    video: str
    masks: str
    frames: int
    found: int


def build_video_tab(services: Services, header: Header, drawing: list) -> None:
    """Build the sub-tab. drawing: the components that `gather` reads."""
    followed, work = gr.State(None, time_to_live=4 * 3600), gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            gr.Markdown(HELP)
            file = gr.File(label="Video (MP4, MOV, WebM, GIF)", height=120, elem_id="video-file")
            opacity = option_control(OPACITY, elem_id="video-opacity")
            with gr.Row():
                start = gr.Button("Follow it", variant="primary", elem_id="video-start")
                stop = gr.Button("Stop here", variant="stop", visible=False, elem_id="video-stop")
            status = gr.Markdown("No video yet.", elem_id="video-status")
        with gr.Column(scale=1, min_width=320):
            video = gr.Video(label="Result", interactive=False, autoplay=True, loop=True, elem_id="video-result")
            with gr.Row():
                download_button("Download video (.mp4)", _video_file, [followed], "video-mp4")
                download_button("Download masks (.zip)", _masks_file, [followed], "video-zip")

    @friendly
    def on_start(kept, value, photo, name, exact, opened, path, strength, backbone, resolution):
        if path is None:
            raise ValueError("there is no video yet; drop one first")
        wanted, others = gather(kept, value, photo, name, exact, opened)
        job = Work(lambda progress: read_frames(path, report=progress))
        yield None, None, job, "Reading the video", gr.update(visible=True)
        for _, message in job.steps():
            yield *[gr.skip()] * 3, message, gr.skip()
        clip = job.result
        segmenter = fit(services, wanted, others, backbone, int(resolution))
        job = Work(lambda progress: follow(segmenter, clip, strength, progress))
        yield None, None, job, f"{len(clip)} frames", gr.update(visible=True)
        for _, message in job.steps():
            yield *[gr.skip()] * 3, message, gr.skip()
        done = job.result
        message = f"Found in {done.found} of {done.frames} frames."
        if done.frames < len(clip):
            message += f" Stopped before the other {len(clip) - done.frames}."
        yield done, done.video, None, message, gr.update(visible=False)

    def on_stop(job: Work | None):
        if job is not None:
            job.stop()
        return gr.update(visible=False)

    event = start.click(
        on_start,
        [*drawing, file, opacity, header.backbone, header.resolution],
        [followed, video, work, status, stop],
        **ENGINE_QUEUE,
        api_visibility="private",
        show_progress_on=[status],
    )
    stop.click(on_stop, work, stop, **QUIET)
    event.failure(lambda: ("Not followed.", gr.update(visible=False)), None, [status, stop], **QUIET)


def follow(segmenter: "ReferenceSegmenter", clip: VideoClip, opacity: float, progress: Callable) -> Followed:
    """Follow the object through a clip; stopped, it gives what was done until then.

    progress(done, total, message) is called after every frame and stops the work by raising `Stopped`.
    """
    name = stem(clip.name)
    masks = write_download(f"{name}-masks.zip", b"")
    found: list[bool] = []
    with zipfile.ZipFile(masks, "w") as archive:
        frames = _frames(segmenter, clip, opacity, archive, found, progress)
        video = write_video(Path(masks).with_name(f"{name}-followed.mp4"), frames, clip.fps)
    return Followed(str(video), masks, len(found), sum(found))


def _frames(segmenter, clip, opacity, archive: zipfile.ZipFile, found: list[bool], progress) -> Iterator[np.ndarray]:
    """Yield overlaid frames; masks go into the archive, whether the object is there into `found`."""
    started = time.perf_counter()
    for i, segmentation in propagate(segmenter, clip.frames):
        archive.writestr(f"{i:04d}.png", png_bytes(segmentation.mask.astype(np.uint8) * 255))
        found.append(segmentation.found)
        yield paint_mask(clip.frames[i], segmentation.mask, opacity)
        left = (time.perf_counter() - started) / (i + 1) * (len(clip) - i - 1)
        try:
            progress(i + 1, len(clip), f"Frame {i + 1} of {len(clip)}, about {left:.0f} s left")
        except Stopped:
            return


def _video_file(followed: Followed | None) -> tuple[str, bytes]:
    return _file(followed.video if followed else None)


def _masks_file(followed: Followed | None) -> tuple[str, bytes]:
    return _file(followed.masks if followed else None)


def _file(path: str | None) -> tuple[str, bytes]:
    if path is None or not Path(path).is_file():
        raise ValueError("there is nothing to download yet; follow the object through a video first")
    return Path(path).name, Path(path).read_bytes()
