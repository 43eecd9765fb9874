"""The inference module that everything calls: pictures in, Features out; one network, many threads."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
import torch

from ..backbones import Backbone, resolve
from ..backbones.adapter import BackboneAdapter
from ..backbones.identity import Identity, identify, stamp_of
from ..backbones.network import Tokens
from ..io.defaults import RESOLUTION
from ..io.images import ImageSource, Photo, as_photo, grid_size, network_input
from . import devices, request_log
from .backends import open_network
from .cache import SharedCache
from .capacity import Capacity
from .features import Features
from .kept import through_disk
from .raw import Raw, to_raw
from .scheduler import Request, Scheduler

CACHE_BYTES = 1 << 30
RowsAndOptions = tuple[tuple[int, ...], tuple[int, ...]]  # layers, row tokens
Progress = Callable[[int, int | None], None]  # done, total (None when it is not known)


class Engine:
    """Turn pictures into features with one backbone; safe to call from many threads.

    Args:
        backbone: A name of `backbones.BACKBONES`, a model folder, a finished training run, or a hub id; it runs, or an
            error says why it cannot. None: the default, which falls back to the offline default where it cannot be had.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto", "float32", "bfloat16" or "float16".
        cache: Shared by engines on one device (see `EnginePool`).
        device_lock: Shared by engines on one device.
        backend: "auto", "torch" or "openvino", see `backends.open_network`.

    Raises:
        ValueError: A name is unknown or a folder holds no model.
        RuntimeError: The weights cannot be had.
    """

    def __init__(
        self,
        backbone: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        cache: SharedCache | None = None,
        device_lock: AbstractContextManager | None = None,
        backend: str = "auto",
    ):
        self.device = devices.choose_device(device)
        self.dtype = devices.choose_dtype(dtype, self.device)
        devices.limit_threads()
        row, folder = resolve(backbone)
        self._folder, self._stamp = folder, stamp_of(folder)  # before it is read: a change meanwhile is a change
        self._network = open_network(row, folder, self.device, self.dtype, backend)
        self._key = (row.name, str(folder), str(self.dtype), type(self._network).__name__, self._stamp)
        self._capacity = Capacity(row, self._network.adapter.count, self.device, self.dtype)
        self._cache = cache or SharedCache(CACHE_BYTES)
        self._scheduler = Scheduler(self._run, device_lock or threading.Lock(), merge=self.device.type != "cpu")

    @property
    def backbone(self) -> Backbone:
        """Return the row of the backbone that runs."""
        return self._network.backbone

    @property
    def model(self) -> torch.nn.Module:
        """Return the transformers module that runs."""
        return self._network.module

    @cached_property
    def identity(self) -> Identity:
        """Return which network runs, with the checksum of its weights; the first time reads them once more."""
        return identify(self.backbone.name, self._folder, self._stamp)

    def is_outdated(self) -> bool:
        """Return whether the files that were loaded have been replaced, as by a training that runs once more."""
        return stamp_of(self._folder) not in (None, self._stamp)

    @property
    def backend(self) -> str:
        """Return what runs the network: "torch" or "openvino"."""
        return self._network.backend

    @property
    def adapter(self) -> BackboneAdapter:
        """Return what knows where the module's tokens are."""
        return self._network.adapter

    def features(
        self, image: ImageSource | Photo, resolution: int = RESOLUTION, attention: bool = False, crop: str | None = None
    ) -> Features:
        """Return the features of one picture, computed or taken from the cache.

        Args:
            image: Path, bytes, PIL, (H, W, 3) uint8 RGB or Photo.
            resolution: The network sees about resolution^2 pixels.
            attention: Also the CLS attention of every layer.
            crop: None, or "center" for the classification crop.

        Raises:
            ValueError: The picture cannot be read.
            RuntimeError: The memory does not suffice.
        """
        return self.features_timed(image, resolution, attention, crop)[0]

    def features_timed(
        self, image: ImageSource | Photo, resolution: int = RESOLUTION, attention: bool = False, crop: str | None = None
    ) -> tuple[Features, bool]:
        """Return what `features` returns, and whether it came from the cache; arguments as there.

        Args:
            image: The picture.
            resolution: As for `features`.
            attention: As for `features`.
            crop: As for `features`.
        """
        photo = as_photo(image)
        rgb, raw, cached = self._raw(photo, resolution, crop, (), self._cls_rows(attention))
        return self._to_features(photo.size, rgb.shape[:2], raw), cached

    def layers(
        self, image: ImageSource | Photo, layers: tuple[int, ...], resolution: int = RESOLUTION, crop: str | None = None
    ) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Return the tokens of some layers after the final norm.

        Args:
            image: Path, bytes, PIL, (H, W, 3) uint8 RGB or Photo.
            layers: Counted from 0, or below 0 from the last.
            resolution: As for `features`.
            crop: As for `features`.

        Returns:
            (cls (D,), patches (h, w, D)) float32 for each layer asked for.

        Raises:
            ValueError: There is no such layer, or the picture cannot be read.
        """
        wanted = tuple(self._layer_index(i) for i in layers)
        rgb, raw, _ = self._raw(as_photo(image), resolution, crop, tuple(sorted(set(wanted))), ())
        return tuple(self._split(raw.layers[i], rgb.shape[:2])[::2] for i in wanted)

    def attention_rows(
        self, image: ImageSource | Photo, patch: tuple[int, int], resolution: int = RESOLUTION
    ) -> tuple[np.ndarray, bool]:
        """Return one patch's attention to all patches, in every layer.

        Args:
            image: Path, bytes, PIL, (H, W, 3) uint8 RGB or Photo.
            patch: (row, column) on the grid.
            resolution: As for `features`.

        Returns:
            (L, heads, h, w), softmax over all tokens, CLS and registers left out; and whether it was cached.

        Raises:
            ValueError: The patch lies outside of the grid.
        """
        photo = as_photo(image)
        h, w = grid_size(photo.size, resolution, self.backbone.patch_size)
        row, column = patch
        if not (0 <= row < h and 0 <= column < w):
            raise ValueError(f"patch {patch} lies outside the {h} x {w} grid")
        adapter = self._network.adapter
        _, raw, cached = self._raw(photo, resolution, None, (), (adapter.token_of(row * w + column),))
        if raw.rows is None:
            raise RuntimeError(f"{self.backbone.name} gave no attention rows")
        rows = adapter.split(raw.rows[:, :, 0], axis=-1)[2]
        return rows.reshape(*rows.shape[:2], h, w), cached

    def features_batch(
        self,
        images: Iterable[ImageSource | Photo],
        resolution: int = RESOLUTION,
        batch_size: int | str = "auto",
        attention: bool = False,
        crop: str | None = None,
        progress: Progress | None = None,
        errors: str = "raise",
    ) -> Iterator[Features | Exception]:
        """Yield the features of many pictures, in order; decoding overlaps the network, memory stays bounded.

        Results are not put into the cache. Stop iterating to cancel.

        Args:
            images: As for `features`.
            resolution: As for `features`.
            batch_size: Pictures at once; "auto" fits it to the free memory.
            attention: As for `features`.
            crop: As for `features`.
            progress: Called with pictures done and their total after each; the total is None where it is not known.
            errors: "raise" stops at the first unreadable picture, "return" yields its ValueError in its place.

        Raises:
            ValueError: `batch_size` or `errors` is none of these, or a picture cannot be read.
        """
        if errors not in ("raise", "return"):
            raise ValueError(f'errors must be "raise" or "return", got {errors!r}')
        if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size >= 1):
            raise ValueError(f'batch_size must be "auto" or a whole number from 1, got {batch_size!r}')
        total = len(images) if isinstance(images, Sized) else None
        options = ((), self._cls_rows(attention))
        done = 0
        window = self._capacity.most if isinstance(batch_size, str) else batch_size
        pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode")
        try:
            jobs = (pool.submit(self._prepare, image, resolution, crop) for image in images)
            pending: list = list(itertools.islice(jobs, window))
            while pending:
                ready = [_outcome(job) for job in pending]
                pending = list(itertools.islice(jobs, window))  # decoded while the network runs
                for result in self._run_window(ready, options, batch_size):
                    if isinstance(result, Exception) and errors == "raise":
                        raise result
                    done += 1
                    if progress:
                        progress(done, total)
                    yield result
        finally:  # also when the caller stops early
            pool.shutdown(wait=False, cancel_futures=True)

    def estimate_seconds(self, tokens: int) -> float:
        """Return the estimated time of one picture of so many tokens, from the speed seen so far."""
        return self._capacity.seconds(tokens)

    def request_seconds(self, tokens: int) -> float:
        """Return the estimated time until a request for one picture is answered, waiting included."""
        return self._capacity.request_seconds(tokens)

    def grid(self, size: tuple[int, int], resolution: int) -> tuple[int, int]:
        """Return the patch grid (h, w) of a picture.

        Args:
            size: (H, W), px.
            resolution: As for `features`.
        """
        return grid_size(size, resolution, self.backbone.patch_size)

    def _raw(self, photo: Photo, resolution: int, crop: str | None, layers, row_tokens) -> tuple[np.ndarray, Raw, bool]:
        started = time.perf_counter()
        rgb = network_input(photo.rgb, resolution, self.backbone.patch_size, crop)
        key = (photo.digest, self._key, resolution, crop, layers, row_tokens)

        def run() -> Raw:  # only here is memory needed: what is cached is given out however little is free
            raw = self._scheduler.ask(Request(rgb, (layers, row_tokens)), self._capacity.check_fits(rgb.shape[:2]))
            h, w = (side // self.backbone.patch_size for side in rgb.shape[:2])
            self._capacity.learn_request(h * w, time.perf_counter() - started)
            return raw

        def name() -> tuple:  # of the weights by their checksum: other ones may lie in the same folder tomorrow
            return self.identity.sha256, self._key[2:4], photo.digest, resolution, crop, layers, row_tokens

        raw, cached = self._cache.get(key, lambda: through_disk(name, run))
        request_log.note(self.backbone.name, computed=not cached, cached=cached)
        return rgb, raw, cached

    def _prepare(self, image: ImageSource | Photo, resolution: int, crop: str | None):
        photo = as_photo(image)
        return photo.size, network_input(photo.rgb, resolution, self.backbone.patch_size, crop)

    def _run_window(self, ready: list, options: RowsAndOptions, batch_size: int | str) -> list[Features | Exception]:
        """Run a window of prepared pictures (or errors), equal shapes together; results in the window's order."""
        results: list = list(ready)
        groups: dict[tuple, list[int]] = {}
        for i, item in enumerate(ready):
            if not isinstance(item, Exception):
                groups.setdefault(item[1].shape, []).append(i)
        for shape, members in groups.items():
            try:
                step = self._capacity.check_fits(shape[:2]) if isinstance(batch_size, str) else batch_size
                for start in range(0, len(members), step):
                    part = members[start : start + step]
                    raws = self._scheduler.run_batch(np.stack([ready[i][1] for i in part]), options)
                    request_log.note(self.backbone.name, computed=len(part))
                    for i, raw in zip(part, raws, strict=True):
                        results[i] = self._to_features(ready[i][0], shape[:2], raw)
            except RuntimeError as error:
                for i in members:
                    if not isinstance(results[i], Features):
                        results[i] = error
        return results

    def _run(self, rgbs: np.ndarray, options: RowsAndOptions) -> list[Raw]:
        layers, row_tokens = options
        started = time.perf_counter()
        try:
            output: Tokens = self._network(torch.from_numpy(np.ascontiguousarray(rgbs)), layers, row_tokens)
            raws = [to_raw(output, i) for i in range(len(rgbs))]
        except (RuntimeError, MemoryError) as error:
            if devices.is_out_of_memory(error) and len(rgbs) == 1:
                raise RuntimeError(self._capacity.too_large(rgbs.shape[1:3])) from error
            raise
        tokens = rgbs.shape[1] * rgbs.shape[2] // self.backbone.patch_size**2
        self._capacity.learn(len(rgbs), tokens, time.perf_counter() - started)
        return raws

    def _cls_rows(self, attention: bool) -> tuple[int, ...]:
        return (self._network.adapter.cls_index,) if attention else ()

    def _layer_index(self, layer: int) -> int:
        depth = self.backbone.depth
        if not (isinstance(layer, int | np.integer) and -depth <= layer < depth):
            raise ValueError(f"layer {layer!r} does not exist; {self.backbone.name} has layers 0 to {depth - 1}")
        return layer % depth

    def _split(self, tokens: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Split (T, D) tokens into cls (D,), registers (R, D) and patches (h, w, D)."""
        h, w = (side // self.backbone.patch_size for side in size)
        cls, registers, patches = self._network.adapter.split(tokens)
        return cls, registers, patches.reshape(h, w, -1)

    def _to_features(self, image_size: tuple[int, int], input_size: tuple[int, int], raw: Raw) -> Features:
        cls, registers, patches = self._split(raw.layers[self._network.last_layer], input_size)
        layer_attention = prefix_attention = None
        if raw.rows is not None:
            cls_rows = raw.rows[:, :, 0]  # [L, heads, T]
            on_cls, on_registers, on_patches = self._network.adapter.split(cls_rows, axis=-1)
            prefix_attention = np.concatenate([on_cls[..., None], on_registers], axis=-1)
            layer_attention = on_patches.reshape(*cls_rows.shape[:2], *patches.shape[:2])
        return Features(
            cls=cls,
            patches=patches,
            registers=registers,
            image_size=image_size,
            input_size=input_size,
            backbone=self.backbone.name,
            identity=self.identity,
            layer_attention=layer_attention,
            prefix_attention=prefix_attention,
            patch_norms=self._network.adapter.split(raw.norms, axis=-1)[2].reshape(patches.shape[:2]),
        )


def _outcome(job):
    try:
        return job.result()
    except ValueError as error:
        return error
