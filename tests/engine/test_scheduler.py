import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from dinodemo.engine.scheduler import Request, Scheduler


def picture(value: int, size: tuple[int, int] = (2, 2)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


class Door:
    """Be the device lock, and tell how many have come to it."""

    def __init__(self):
        self._lock, self._arrivals = threading.Lock(), threading.Semaphore(0)

    def __enter__(self):
        self._arrivals.release()
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()

    def wait_for(self, n: int) -> None:
        for _ in range(n):
            assert self._arrivals.acquire(timeout=300)


class Network:
    """Answer with each picture's first value; record the batches; fail as told."""

    def __init__(self, memory: int = 1000, error: Exception | None = None):
        self.batches, self.memory, self.error = [], memory, error
        self.running, self._users = threading.Event(), 0

    def __call__(self, rgbs, options):
        self._users += 1
        assert self._users == 1, "two threads are on the device"
        try:
            self.batches.append(rgbs[:, 0, 0, 0].tolist())
            self.running.set()
            if len(rgbs) > self.memory:
                raise torch.OutOfMemoryError("out of memory")
            if self.error:
                raise self.error
            return [(int(rgb[0, 0, 0]), options) for rgb in rgbs]
        finally:
            self._users -= 1


def ask_while_busy(network: Network, requests: list[Request], most: int = 64, merge: bool = True) -> list:
    """Queue all requests, in this order, while the device is in use; returns results or errors."""
    door = Door()
    scheduler = Scheduler(network, door, merge)
    with ThreadPoolExecutor(len(requests)) as pool:
        with door:
            door.wait_for(1)
            jobs = []
            for request in requests:
                jobs.append(pool.submit(scheduler.ask, request, most))
                door.wait_for(1)
        return [job.exception(10) or job.result() for job in jobs]


def test_a_lone_request_is_answered():
    assert Scheduler(Network(), threading.Lock(), merge=True).ask(Request(picture(7), ("x",)), 8) == (7, ("x",))


def test_waiting_requests_of_one_shape_become_one_batch_and_each_gets_its_own_answer():
    network = Network()
    answers = ask_while_busy(network, [Request(picture(i), ()) for i in range(5)])
    assert [sorted(batch) for batch in network.batches] == [[0, 1, 2, 3, 4]]
    assert answers == [(i, ()) for i in range(5)]


def test_without_merging_each_runs_alone():
    network = Network()
    answers = ask_while_busy(network, [Request(picture(i), ()) for i in range(4)], merge=False)
    assert sorted(network.batches) == [[0], [1], [2], [3]]
    assert answers == [(i, ()) for i in range(4)]


def test_other_shapes_and_options_are_not_merged():
    network = Network()
    requests = [
        Request(picture(1), ()),
        Request(picture(2, (2, 4)), ()),
        Request(picture(3), ("rows",)),
        Request(picture(4), ()),
        Request(picture(5, (2, 4)), ()),
    ]
    answers = ask_while_busy(network, requests)
    assert sorted(sorted(batch) for batch in network.batches) == [[1, 4], [2, 5], [3]]
    assert answers == [(1, ()), (2, ()), (3, ("rows",)), (4, ()), (5, ())]


def test_a_batch_is_bounded_by_what_fits():
    network = Network()
    answers = ask_while_busy(network, [Request(picture(i), ()) for i in range(7)], most=3)
    assert sorted(len(batch) for batch in network.batches) == [1, 3, 3]
    assert answers == [(i, ()) for i in range(7)]


def test_an_error_reaches_everybody_in_the_batch_and_nobody_else():
    network = Network(error=RuntimeError("broken"))
    answers = ask_while_busy(network, [Request(picture(i), ()) for i in range(3)])
    assert [str(error) for error in answers] == ["broken"] * 3
    assert len(network.batches) == 1
    network.error = None
    assert Scheduler(network, threading.Lock(), merge=True).ask(Request(picture(9), ()), 4) == (9, ())


def test_a_merged_batch_is_halved_when_memory_runs_out():
    network = Network(memory=2)
    answers = ask_while_busy(network, [Request(picture(i), ()) for i in range(5)])
    assert answers == [(i, ()) for i in range(5)]
    assert max(len(batch) for batch in network.batches) == 5


@pytest.mark.parametrize(("memory", "tried"), [(8, [8]), (4, [8, 4, 4]), (3, [8, 4, 2, 2, 4, 2, 2])])
def test_a_ready_batch_is_halved_until_it_fits_and_stays_in_order(memory, tried):
    network = Network(memory)
    results = Scheduler(network, threading.Lock(), merge=False).run_batch(np.stack([picture(i) for i in range(8)]), ())
    assert [value for value, _ in results] == list(range(8))
    assert [len(batch) for batch in network.batches] == tried


def test_a_single_picture_that_does_not_fit_is_an_error():
    network = Network(memory=0)
    with pytest.raises(torch.OutOfMemoryError):
        Scheduler(network, threading.Lock(), merge=False).run_batch(np.stack([picture(0), picture(1)]), ())
    assert [len(batch) for batch in network.batches] == [2, 1]


def test_other_errors_are_not_tried_again():
    network = Network(error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        Scheduler(network, threading.Lock(), merge=False).run_batch(np.stack([picture(0), picture(1)]), ())
    assert len(network.batches) == 1


def test_the_device_is_free_again_after_an_error():
    lock = threading.Lock()
    with pytest.raises(RuntimeError):
        Scheduler(Network(error=RuntimeError("broken")), lock, merge=True).ask(Request(picture(0), ()), 1)
    assert lock.acquire(blocking=False)


def test_one_device_is_shared_by_several_schedulers():
    network, lock = Network(), threading.Lock()  # the network fails when two threads are in it
    schedulers = [Scheduler(network, lock, merge=True) for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(schedulers[i % 3].ask, Request(picture(i), ()), 4) for i in range(90)]
        assert [job.result(10)[0] for job in jobs] == list(range(90))
