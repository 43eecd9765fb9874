"""What the machine offers: device, number format, CPU threads and free memory."""

import os
import sys
from pathlib import Path

import torch

from ..io.files import plural

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str = "auto") -> torch.device:
    """Return a device by its name, the best of this machine for "auto"; raises ValueError if it is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch answers a missing CUDA build with an AssertionError
        raise ValueError(f'device {device!r} is not usable here ({error}); use "auto" or "cpu"') from error
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turn "auto" into bfloat16 where hardware has it, float16 on older GPUs, else float32; check any other name."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ValueError(f'dtype must be "auto" or one of {", ".join(DTYPES)}, got {dtype!r}')
        return DTYPES[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else torch.float32


def limit_threads() -> int:
    """Set torch to as many CPU threads as this process may really use (affinity and container quota); returns them.

    In a container torch counts the host's cores, and too many threads are slower than too few.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = max(1, min(cores, int(_cgroup_cpus() or cores)))
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > allowed:
        torch.set_num_threads(allowed)
    return torch.get_num_threads()


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on the device (an estimate)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(_available_ram(), _cgroup_free_ram())


def describe(device: torch.device) -> str:
    """Return the device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {plural(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else device.type


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch failed for want of memory, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    )


def _cpu_has_bfloat16() -> bool:
    return any(flag in _read("/proc/cpuinfo") for flag in ("avx512_bf16", "amx_bf16"))


def _available_ram() -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 4 << 30  # systems without /proc: a cautious guess


def _cgroup_free_ram() -> int:
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return sys.maxsize  # no limit
    stat = dict(line.split() for line in _read("/sys/fs/cgroup/memory.stat").splitlines())
    # the page cache counts as used, but the kernel gives it back when asked
    page_cache = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    return max(int(limit) - int(used) + page_cache, 0)


def _cgroup_cpus() -> float | None:
    parts = _read("/sys/fs/cgroup/cpu.max").split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
