"""Patch PCA: what patches mean, as colours."""

from ..base import Task, lazy

TASK = Task("pca", "Patch PCA")
__getattr__ = lazy(__name__, dict.fromkeys(["PatchPCA", "otsu_threshold"], "basis"))
