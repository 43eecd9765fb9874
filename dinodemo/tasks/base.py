"""What a task is to the page, the API, the command line and the docs; and one place for each setting."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from ..io import defaults


@dataclass(frozen=True)
class Task:
    """Describe a task. Its folder is `tasks/<name>/`.

    Args:
        name: of its folder, its tab's id and its page in the docs.
        title: on its tab.
        rooms: which of the modules that all tasks have the same way are there:
            "tab" (`build(services, header, tab, page)`), "api" (`functions(services)`: what programs may call),
            "cli" (`add_commands(commands)`).
        comparable: whether its tab draws its result a second time with another backbone.
    """

    name: str
    title: str
    rooms: tuple[str, ...] = ("tab", "api", "cli")
    comparable: bool = True

    @property
    def docs(self) -> str:
        """Return the file of its page in the docs."""
        return f"{self.name}.md"

    def room(self, name: str) -> ModuleType | None:
        """Return one of its modules; None where it has none of that name."""
        return import_module(f"{__package__}.{self.name}.{name}") if name in self.rooms else None


@dataclass(frozen=True)
class Option:
    """Describe a setting once: slider, API check and command-line argument are made from it.

    Args:
        name: in the API and, with dashes, on the command line.
        default: what it is unless somebody says otherwise; its type is the setting's.
        low, high, step: of numbers.
        choices: of texts.
        labels: of the choices on the page, where they differ from the choices.
        label, help: on the page; the help also stands in the command's own help and in the docs.
    """

    name: str
    default: Any
    label: str = ""
    help: str = ""
    low: float = 0
    high: float = 1
    step: float = 0.05
    choices: Sequence[str] = ()
    labels: Sequence[str] = ()

    def check(self, value: Any) -> Any:
        """Return a value that may be used; raises ValueError that says what was expected and what came."""
        if self.choices:
            if not isinstance(value, str) or value not in self.choices:
                raise ValueError(f"{self.name} must be one of {', '.join(self.choices)}; got {shown(value)}")
            return value
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise ValueError(f"{self.name} must be true or false, got {shown(value)}")
            return value
        number = not isinstance(value, bool) and isinstance(value, int | float) and self.low <= value <= self.high
        if isinstance(self.default, int):
            if not number or value % 1:
                raise ValueError(
                    f"{self.name} must be a whole number from {self.low:g} to {self.high:g}, got {shown(value)}"
                )
            return int(value)
        if not number:
            raise ValueError(f"{self.name} must be a number from {self.low:g} to {self.high:g}, got {shown(value)}")
        return float(value)

    def add_to(self, parser: argparse.ArgumentParser, words: str = "") -> None:
        """Add it to a command.

        Args:
            parser: Of the command.
            words: A help line of the command's own.
        """
        flag, text = f"--{self.name.replace('_', '-')}", words or self.help or self.label
        if isinstance(self.default, bool):
            parser.add_argument(flag, action="store_true", help=text)
        elif self.choices:
            parser.add_argument(
                flag, choices=list(self.choices), default=self.default, help=f"{text} (default: %(default)s)"
            )
        else:
            parser.add_argument(flag, type=self.parse, default=self.default, help=f"{text} (default: %(default)s)")

    def parse(self, text: str) -> float:
        """Return a number from a command line; raises argparse.ArgumentTypeError."""
        try:
            return self.check(type(self.default)(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"must be from {self.low:g} to {self.high:g}, got {text}"
            ) from error  # argparse names the option itself

    def changed(self, **values: Any) -> "Option":
        """Return it with other values: a task's own default of a shared setting, for example."""
        from dataclasses import replace

        return replace(self, **values)


def shown(value: object) -> str:
    """Return a value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def lazy(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, which imports public names when they are asked for.

    Args:
        package: Its `__name__`.
        names: Module of each public name.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{names[name]}"), name)

    return get


RESOLUTION = Option(
    "resolution",
    defaults.RESOLUTION,
    "Resolution",
    "the network sees about this number squared of pixels",
    56,
    1022,
    14,
)
OPACITY = Option("opacity", 0.6, "Opacity", "of the map over the photo")
SMOOTH = Option("smooth", True, "Smooth (off shows individual patches)", "false draws one square a patch")
COLOUR_MAPS = ("inferno", "viridis", "magma", "plasma", "turbo", "cividis", "jet", "grey")
COLOUR_MAP = Option("colour_map", "inferno", "Colour map", "of the map", choices=COLOUR_MAPS)
