"""Lens: what resembles the patch under the pointer, on up to eight photos at once, worked out in the browser."""

from ..base import Task, lazy

TASK = Task("lens", "Lens", rooms=("tab", "cli"), comparable=False)
__getattr__ = lazy(__name__, {"pack": "packing", "Packed": "packing", "page": "standalone"})
