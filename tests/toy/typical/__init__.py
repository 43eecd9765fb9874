"""Typical: how much each patch is like the photo as a whole. A worked example of a task, see CONTRIBUTING.md."""

from dinodemo.tasks.base import Task, lazy

TASK = Task("typical", "Typical", comparable=False)
__getattr__ = lazy(__name__, {"typical_map": "maps"})
