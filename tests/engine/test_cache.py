import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from dinodemo.engine.cache import SharedCache


@dataclass
class Value:
    name: str
    nbytes: int = 10


def put(cache: SharedCache, *names: str, nbytes: int = 10) -> None:
    for name in names:
        cache.get(name, lambda name=name: Value(name, nbytes))


class Asked:
    """Be a key equal to its like, and tell when the cache has looked for it."""

    def __init__(self, name: str = "same"):
        self.name, self.seen = name, threading.Event()

    def __hash__(self):
        self.seen.set()
        return hash(self.name)

    def __eq__(self, other):
        return self.name == other.name


def in_flight_together(cache: SharedCache, compute, n: int = 8) -> list:
    """Ask for one key from n threads; the computation ends only after all have asked. Returns results or errors."""
    keys = [Asked() for _ in range(n)]

    def wait_then_compute():
        for key in keys:
            assert key.seen.wait(10)
        return compute()

    with ThreadPoolExecutor(n) as pool:
        jobs = [pool.submit(cache.get, key, wait_then_compute) for key in keys]
        return [job.exception(10) or job.result() for job in jobs]


def test_the_second_question_is_answered_from_the_cache():
    cache = SharedCache(100)
    value = Value("a")
    assert cache.get("a", lambda: value) == (value, False)
    assert cache.get("a", lambda: pytest.fail("computed again")) == (value, True)
    assert "a" in cache


def test_the_least_recently_used_goes_first():
    cache = SharedCache(30)
    put(cache, "a", "b", "c")
    cache.get("a", lambda: pytest.fail("was kept"))
    put(cache, "d")
    assert [name for name in "abcd" if name in cache] == ["a", "c", "d"]


def test_the_bound_holds_in_bytes():
    cache = SharedCache(100)
    for i in range(50):
        put(cache, str(i), nbytes=7 + i % 13)
        assert cache.nbytes <= 100
    kept = [i for i in range(50) if str(i) in cache]
    assert cache.nbytes == sum(7 + i % 13 for i in kept)
    assert kept == list(range(kept[0], 50))


def test_a_value_larger_than_the_bound_is_given_but_not_kept_and_displaces_nothing():
    cache = SharedCache(30)
    put(cache, "a")
    assert cache.get("big", lambda: Value("big", 31))[0].name == "big"
    assert "big" not in cache
    assert "a" in cache


def test_clear_forgets_everything():
    cache = SharedCache(30)
    put(cache, "a", "b")
    cache.clear()
    assert ("a" in cache, cache.nbytes) == (False, 0)
    put(cache, "a", "b", "c")
    assert cache.nbytes == 30


def test_the_same_question_in_flight_is_answered_once():
    cache, calls = SharedCache(100), []
    results = in_flight_together(cache, lambda: calls.append(1) or Value("a"))
    assert len(calls) == 1
    assert {value.name for value, _ in results} == {"a"}
    assert sorted(cached for _, cached in results) == [False] + [True] * 7


def test_everybody_who_waited_gets_the_error_and_the_next_one_tries_again():
    cache, calls = SharedCache(100), []

    def fail():
        calls.append(1)
        raise RuntimeError("broken")

    errors = in_flight_together(cache, fail)
    assert len(calls) == 1
    assert [str(error) for error in errors] == ["broken"] * 8
    assert cache.get(Asked(), lambda: Value("fine"))[0].name == "fine"


def test_different_questions_do_not_wait_for_each_other():
    cache, inside = SharedCache(100), threading.Barrier(2, timeout=300)

    def compute():
        inside.wait()
        return Value("met")

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(cache.get, name, compute) for name in "ab"]
        assert [job.result(10)[0].name for job in jobs] == ["met", "met"]


def test_a_cache_without_room_still_shares_what_is_in_flight():
    cache, calls = SharedCache(0), []
    in_flight_together(cache, lambda: calls.append(1) or Value("a"))
    assert (len(calls), cache.nbytes) == (1, 0)
