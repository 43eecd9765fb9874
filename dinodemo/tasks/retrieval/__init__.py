"""Retrieval: an index of photos on disk, asked with a photo or a part of one."""

from ..base import Task, lazy

TASK = Task("retrieval", "Retrieval")
__getattr__ = lazy(
    __name__,
    {
        "Entry": "index",
        "Hit": "index",
        "ImageIndex": "index",
        "Statistics": "index",
        "Filter": "snapshot",
        "AddReport": "writing",
    },
)
