"""The one place where the core's errors become messages on the page, and where every request is logged."""

import contextlib
import errno
import functools
import inspect
import logging
import secrets
import traceback

import gradio as gr

from ..engine.request_log import Entry, current
from .clicks import Click
from .i18n import localized, say

log = logging.getLogger(__name__)
MOST_LETTERS = 1000  # of a message: some quote what they found in a file
FULL = "The server's disk is full; what was saved before is still there. Try again later, or tell who runs it."
FORBIDDEN = "The server may not write to one of its folders; tell who runs it."
DISK = {errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EROFS: FORBIDDEN, errno.EACCES: FORBIDDEN, errno.EPERM: FORBIDDEN}
OUT_OF_MEMORY = "The server has too little memory for this; try fewer or smaller photos, or a lower resolution."


def friendly(function):
    """Wrap an event handler: ValueError and RuntimeError are shown as they are, anything else is logged and named.

    Works for plain functions and for generators; what the page showed before stays. Each call is one line in the log.
    """
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            steps, entry, outcome = function(*args, **kwargs), _entry(function), "cancelled"
            try:
                with entry.active(), _as_messages():
                    _check_clicks(args)
                while True:
                    with entry.active(), _as_messages():  # step by step: each may run in another thread
                        step = next(steps)
                    yield localized(step)
            except StopIteration:
                outcome = "ok"
            except gr.Error as error:
                outcome = _outcome(error)
                raise
            finally:
                steps.close()
                entry.end(outcome)

    else:

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            if current() is not None:  # one handler calls another: one request, one line
                return function(*args, **kwargs)
            entry, outcome = _entry(function), "ok"
            try:
                with entry.active(), _as_messages():
                    _check_clicks(args)
                    return localized(function(*args, **kwargs))
            except gr.Error as error:
                outcome = _outcome(error)
                raise
            finally:
                entry.end(outcome)

    return wrapped


@contextlib.contextmanager
def _as_messages():
    try:
        yield
    except StopIteration:  # a generator's end
        raise
    except Exception as error:
        raise as_message(error) from error


def _check_clicks(args: tuple) -> None:
    for arg in args:
        if isinstance(arg, Click):
            arg.check()


def _outcome(message: gr.Error) -> str:
    return "refused" if message.__cause__ is None or is_expected(message.__cause__) else "error"


def _entry(function) -> Entry:
    return Entry(tab=function.__module__.rpartition(".")[2], action=function.__qualname__.rpartition(".")[2])


def as_message(error: Exception) -> gr.Error:
    """Return what the page shows of an error; an unexpected one goes to the log, under the request's id."""
    if isinstance(error, gr.Error):
        return error
    if is_expected(error):
        return gr.Error(_sentence(say(str(error))), print_exception=False)
    if message := _system_message(error):
        log.error("%s", message)
        return gr.Error(say(message), print_exception=False)
    entry = current()
    reference = entry.id if entry else secrets.token_hex(4)
    where = "".join(traceback.format_tb(error.__traceback__))
    # the error's own text may hold names and paths of a person's files
    log.error("unexpected %s in request %s\n%s", type(error).__name__, reference, where)
    log.debug("request %s: %s", reference, error)
    return gr.Error(
        say(f"Something went wrong on the server. Reference in its log: {reference}"), print_exception=False
    )


def is_expected(error: Exception) -> bool:
    """Return whether an error's text was written for the person who made the request."""
    if isinstance(error, gr.Error):
        return True
    if isinstance(error, RuntimeError):
        return bool(str(error)) and "\n" not in str(error)  # torch's own help nobody on a page
    return isinstance(error, ValueError) and bool(str(error))


def _system_message(error: Exception) -> str | None:
    """Return a sentence for what a full disk, its permissions or the memory do, None for any other error."""
    if isinstance(error, OSError):
        return DISK.get(error.errno or 0)
    if isinstance(error, MemoryError | RuntimeError):
        from ..engine.devices import is_out_of_memory  # it brings torch, which runs already where this can happen

        return OUT_OF_MEMORY if is_out_of_memory(error) else None
    return None


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    text = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
    first = text.split(" ", 1)[0]
    start = text[:1].upper() + text[1:] if first.isalpha() else text  # file names stay as they are
    return start + ("" if text.endswith((".", "!", "?")) else ".")
