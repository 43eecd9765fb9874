"""How old something is, on a machine whose clock may be set while this process runs.

Files and records are dated by the clock on the wall. When that is set forth, all of them look old at once; when it is
set back and then put right, what was written meanwhile does. So whoever removes or ends what is old asks here. From
the moment at which the clock was set, ages are counted by the clock that nobody sets: everything gets its full time
again. A laptop that slept looks the same; what is old there stays a while longer.
"""

import math
import threading
import time

SET_BY = 60.0  # seconds between the two clocks, from one look to the next, that count as a clock that was set

_lock = threading.Lock()
_begun = time.monotonic()
_apart = time.time() - _begun  # of both clocks at the last look
_set_at = -math.inf  # on the clock that nobody sets


def steady() -> float:
    """Return the seconds since some moment, by the clock that nobody sets."""
    return time.monotonic()


def look() -> None:
    """Take note of a clock that was set; to be called often, so that no short time of a wrong clock is missed."""
    global _apart, _set_at
    with _lock:
        steady = time.monotonic()
        apart = time.time() - steady
        if abs(apart - _apart) > SET_BY:
            _set_at = steady
        _apart = apart


def age(written: float) -> float:
    """Return for how many seconds something has been there, by what is certain: it may be older.

    Args:
        written: When it was written, in seconds since 1970 as the clock stood then.
    """
    look()
    by_clock, certain = time.time() - written, time.monotonic() - _set_at
    if by_clock < -SET_BY:  # written while the clock was ahead: its date says nothing
        return min(certain, time.monotonic() - _begun)
    return min(by_clock, certain)
