"""The one place where the core's errors become messages on the page."""

import functools
import inspect
import logging
import secrets

import gradio as gr

log = logging.getLogger(__name__)


def friendly(function):
    """Wrap an event handler: ValueError and RuntimeError are shown as they are, anything else is logged and named.

    Works for plain functions and for generators; what the page showed before stays.
    """
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                raise as_message(error) from error

    else:

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except Exception as error:
                raise as_message(error) from error

    return wrapped


def as_message(error: Exception) -> gr.Error:
    """Turn an error into what the page shows."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, ValueError | RuntimeError) and not _is_internal(error):
        return gr.Error(_sentence(str(error)), print_exception=False)
    reference = secrets.token_hex(3)
    log.error("unexpected error %s", reference, exc_info=error)
    return gr.Error(f"Something went wrong on the server. Reference in its log: {reference}", print_exception=False)


def _is_internal(error: Exception) -> bool:
    """Tell whether a RuntimeError is torch's own, whose text helps nobody on a page."""
    return "\n" in str(error) or not str(error)


def _sentence(text: str) -> str:
    first = text.split(" ", 1)[0]
    start = text[:1].upper() + text[1:] if first.isalpha() else text  # file names stay as they are
    return start + ("" if text.endswith((".", "!", "?")) else ".")
