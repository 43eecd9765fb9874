"""What was clicked, as Gradio's event data tells it. Any program can make that up, so it is checked before it is used.

A handler names one of these kinds where Gradio's guide has `gr.SelectData`; `friendly` calls `check`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import gradio as gr

NO_CLICK = "this request does not say what was clicked; click on the page itself"
GONE = "what was clicked is no longer there; choose another"
MOST_PIXELS = 1_000_000  # of a side of a picture that is shown
T = TypeVar("T")


class Click(gr.EventData, ABC):
    """A click on something that can be selected."""

    def check(self) -> None:
        """Raise ValueError unless the event says where the click was."""
        if not isinstance(self._data, dict) or not self._fits(self._data.get("index")):
            raise ValueError(NO_CLICK)

    @staticmethod
    @abstractmethod
    def _fits(index: Any) -> bool:
        """Return whether this can be the place of such a click."""


class Choice(Click):
    """A click on one of several: a picture of a gallery, an example."""

    @staticmethod
    def _fits(index: Any) -> bool:
        return isinstance(index, int) and not isinstance(index, bool) and index >= 0

    @property
    def index(self) -> int:
        """Return which one, from 0; there may be fewer."""
        return self._data["index"]

    def of(self, things: Sequence[T]) -> T:
        """Return the clicked one of what is shown; raises ValueError where there are fewer."""
        if self.index >= len(things):
            raise ValueError(GONE)
        return things[self.index]


class Spot(Click):
    """A click on a point of a picture."""

    @staticmethod
    def _fits(index: Any) -> bool:
        return isinstance(index, list | tuple) and len(index) == 2 and all(map(_is_coordinate, index))

    @property
    def point(self) -> tuple[float, float]:
        """Return x and y in pixels of the picture as it is shown; they may lie beyond its right and lower edge."""
        x, y = self._data["index"]
        return x, y


def _is_coordinate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST_PIXELS  # NaN is not
