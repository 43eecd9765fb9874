"""Compare: how alike two photos are, and which of their parts agree."""

from ..base import Task, lazy

TASK = Task("compare", "Compare")
__getattr__ = lazy(
    __name__, dict.fromkeys(["Matches", "similarity", "match", "heat_map", "spread", "consistent"], "matches")
)
