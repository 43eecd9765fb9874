"""The log of requests: one JSON object a line, with what ran and for how long, and nothing of what a person sent."""

import contextlib
import json
import logging
import secrets
import time
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from ..backbones import BACKBONES

log = logging.getLogger("dinodemo.requests")
QUICK = 0.1  # seconds: what is quicker, went well and needed no network is not worth a line (sliders, ticks)
MOST_LETTERS = 10_000  # of a message
_current: ContextVar["Entry | None"] = ContextVar("request", default=None)


@dataclass
class Entry:
    """What is known of a request that is being answered."""

    tab: str
    action: str
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    backbones: list[str] = field(default_factory=list)
    computed: int = 0  # pictures that went through the network
    cached: int = 0  # pictures whose features were there already
    _started: float = field(default_factory=time.perf_counter)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make `note` write into this entry within the block.

        Yields:
            Nothing.
        """
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def end(self, outcome: str) -> None:
        """Write the line. outcome: "ok", "refused" (with a sentence), "error" (unexpected) or "cancelled"."""
        seconds = time.perf_counter() - self._started
        record = {
            "request": self.id,
            "tab": self.tab,
            "action": self.action,
            "backbone": "+".join(self.backbones) or None,
            "ms": round(seconds * 1000),
            "computed": self.computed,
            "cached": self.cached,
            "outcome": outcome,
        }
        trivial = outcome == "ok" and not self.backbones and seconds < QUICK
        log.log(logging.DEBUG if trivial else logging.INFO, "request", extra={"facts": record})


def current() -> Entry | None:
    """Return the entry of the request that this thread answers, if any."""
    return _current.get()


def note(backbone: str, computed: int = 0, cached: int = 0) -> None:
    """Add a use of the network to the current request, if there is one."""
    entry = _current.get()
    if entry is None:
        return
    name = public_name(backbone)
    if name not in entry.backbones:
        entry.backbones.append(name)
    entry.computed += computed
    entry.cached += cached


def public_name(backbone: str) -> str:
    """Return a backbone's name if it is in the table; folders and ids, which may tell of a person, become "other"."""
    return backbone if backbone in BACKBONES else "other"


class JsonLines(logging.Formatter):
    """Write every record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; times are UTC."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{now}.{record.msecs:03.0f}Z", "level": record.levelname.lower(), "logger": record.name}
        facts = getattr(record, "facts", None)
        line |= facts or {"message": _cut(record.getMessage())}
        if record.exc_info and record.exc_info[0]:
            # the error's own text may hold names and values of a person, and as many letters as they sent
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = _cut("".join(traceback.format_tb(record.exc_info[2])))
        return json.dumps(line, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}... ({len(text)} letters)"


def log_to_stderr() -> None:
    """Send the package's log to stderr as JSON lines, once."""
    package = logging.getLogger("dinodemo")
    if any(isinstance(handler.formatter, JsonLines) for handler in package.handlers):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    package.addHandler(handler)
    package.setLevel(logging.INFO)
