"""How a setting of a run is declared: its help text, the values it may have, the objectives it means something to."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """Which values a setting may have; `text` completes the sentence "NAME must ..."."""

    text: str
    accepts: Callable[[Any], bool]


ANY = Rule("be of the right type", lambda value: True)
SHARE = Rule("lie between 0 and 1", lambda value: 0 <= value <= 1)
POSITIVE = Rule("be above 0", lambda value: value > 0)
NOT_NEGATIVE = Rule("be 0 or more", lambda value: value >= 0)
INTERVAL = Rule("be two shares with 0 < low <= high <= 1", lambda value: 0 < value[0] <= value[1] <= 1)


def one_of(*choices: str) -> Rule:
    """Return the rule that a setting is one of these words."""
    return Rule(f"be one of {', '.join(choices)}", lambda value: value in choices)


DINO, TAIL = ("dino",), ("diet", "labels")  # objectives


def setting(default: Any, help: str, rule: Rule = ANY, only: tuple[str, ...] = (*DINO, *TAIL)) -> Any:
    """Declare a field of FinetuneConfig.

    Args:
        default: Its value unless another is given; its type is the setting's.
        help: What the page and `explanations` show of it.
        rule: Which values it may have.
        only: The objectives that it means something to.
    """
    return dataclasses.field(default=default, metadata={"help": help, "rule": rule, "only": only})
