import pytest
import torch

from dinodemo.engine import devices

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def files(monkeypatch):
    """Replace what the system's files say."""
    content = {}
    monkeypatch.setattr(devices, "_read", lambda path: content.get(path.rsplit("/", 1)[-1], ""))
    return content


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_device(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices.choose_device("auto").type == expected


def test_a_named_device_is_kept():
    assert devices.choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:77", "nonsense", "", "cpu gpu"])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(ValueError, match=r'is not usable here .* use "auto" or "cpu"'):
        devices.choose_device(name)


@pytest.mark.parametrize(
    ("device", "hardware", "expected"),
    [
        (CUDA, True, torch.bfloat16),
        (CUDA, False, torch.float16),
        (CPU, True, torch.bfloat16),
        (CPU, False, torch.float32),
        (torch.device("mps"), True, torch.float32),
    ],
)
def test_auto_takes_bfloat16_only_where_hardware_has_it(device, hardware, expected, files, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: hardware)
    files["cpuinfo"] = "flags : fpu avx2 amx_bf16" if hardware else "flags : fpu avx2 avx512f"
    assert devices.choose_dtype("auto", device) == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_named_dtype_is_kept(name):
    assert devices.choose_dtype(name, CPU) == getattr(torch, name)


@pytest.mark.parametrize("name", ["float64", "half", ""])
def test_other_dtypes_are_refused(name):
    with pytest.raises(ValueError, match='dtype must be "auto" or one of float32'):
        devices.choose_dtype(name, CPU)


@pytest.fixture
def threads(monkeypatch):
    """Pretend to own 64 cores and record what torch is told."""
    told = [64]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: told[-1])
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    return told


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000", 2), ("50000 100000", 1), ("150000 100000", 1), ("max 100000", 64), ("", 64)],
)
def test_threads_follow_the_containers_quota(quota, expected, threads, files):
    files["cpu.max"] = quota
    assert devices.limit_threads() == expected


def test_threads_follow_the_affinity(threads, files, monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert devices.limit_threads() == 2


def test_threads_are_never_raised(threads, files):
    threads.append(1)
    assert devices.limit_threads() == 1


def test_the_users_own_setting_of_threads_wins(threads, files, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    files["cpu.max"] = "200000 100000"
    assert devices.limit_threads() == 64


MEMINFO = "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n"


@pytest.mark.parametrize(
    ("limit", "used", "stat", "expected"),
    [
        ("", "", "", 5_120_000),
        ("max", "700", "", 5_120_000),
        ("3000000", "1000000", "", 2_000_000),
        ("3000000", "2900000", "anon 5\ninactive_file 700000\nactive_file 200000\n", 1_000_000),
        ("1000", "2000", "", 0),
        ("90000000", "0", "", 5_120_000),
    ],
    ids=["no cgroup", "no limit", "limit", "page cache is free", "over the limit", "limit above the machine"],
)
def test_free_memory_is_what_machine_and_container_leave(limit, used, stat, expected, files):
    files |= {"meminfo": MEMINFO, "memory.max": limit + "\n", "memory.current": used + "\n", "memory.stat": stat}
    assert devices.free_memory(CPU) == expected


def test_free_memory_without_proc_is_a_cautious_guess(files):
    assert devices.free_memory(CPU) == 4 << 30


def test_free_memory_of_this_machine_is_plausible():
    assert 1 << 20 < devices.free_memory(CPU) < 1 << 50


def test_free_gpu_memory_counts_what_torch_holds_unused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20)
    assert devices.free_memory(CUDA) == 130


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, expected):
    assert devices.is_out_of_memory(error) is expected


def test_the_device_is_named_for_people(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert devices.describe(CPU) == "CPU, 3 threads"
