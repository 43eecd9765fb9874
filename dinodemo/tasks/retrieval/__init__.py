"""Retrieval: an index of photos on disk, asked with a photo or a part of one."""

from .index import Entry, Hit, ImageIndex, Statistics
from .snapshot import Filter
from .writing import AddReport

__all__ = ["AddReport", "Entry", "Filter", "Hit", "ImageIndex", "Statistics"]
