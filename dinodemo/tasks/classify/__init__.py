"""Classify: a classifier made of a few labelled photos, measured on photos it has not seen, kept, and used."""

from ..base import Task, lazy

TASK = Task("classify", "Classify", comparable=False)
__getattr__ = lazy(
    __name__,
    {
        "PhotoClassifier": "classifier",
        "Prediction": "classifier",
        "Report": "measure",
        "read_labelled": "dataset",
    },
)
