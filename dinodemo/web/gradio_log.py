"""What Gradio and its web server print, made lines of the log: without a visitor's words, and not without end."""

import logging
import sys
import traceback
from types import SimpleNamespace

from gradio import queueing, route_utils, routes

from ..engine.request_log import JsonLines

log = logging.getLogger(__name__)


def quieten_gradio() -> None:
    """Send Gradio's tracebacks to the log as JSON: their own text may hold names and values of visitors."""
    quiet = SimpleNamespace(**{**vars(traceback), "print_exc": _log_exception})
    for module in (queueing, routes, route_utils):
        vars(module)["traceback"] = quiet
        vars(module)["print"] = _drop  # they print what requests hold
    quieten_others()


def quieten_others() -> None:
    """Let what other packages log be JSON, too: what the server for agents says holds words of its callers."""
    root = logging.getLogger()
    if any(isinstance(handler.formatter, _WithoutWords) for handler in root.handlers):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutWords())
    handler.addFilter(lambda record: not record.name.startswith("dinodemo"))  # those have a handler of their own
    root.addHandler(handler)  # with one in place, no package sets up its own way


class _WithoutWords(JsonLines):
    """Say of what packages log that quote their callers only where in the code it was."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        if record.name.split(".")[0] in ("root", "mcp", "sse_starlette"):
            replaced = {"msg": f"{record.levelname.lower()} in {record.module}.{record.funcName}", "args": None}
            record = logging.makeLogRecord({**vars(record), **replaced})
        return super().format(record)


def quieten_server() -> None:
    """Send the web server's messages to the log as JSON; it sets up its own way when it starts."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "py.warnings"):
        logger = logging.getLogger(name)
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        logger.handlers, logger.propagate = [handler], False
    logging.captureWarnings(True)


def _log_exception(*_: object, **__: object) -> None:
    error = sys.exc_info()[1]
    if error is not None and type(error).__name__ != "Error":  # a sentence for the page: the request's line tells of it
        log.error("unexpected %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))


def _drop(*_: object, **__: object) -> None:
    """Print nothing."""
