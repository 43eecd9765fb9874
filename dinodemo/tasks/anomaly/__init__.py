"""Anomalies: a memory of good photos, and what on other photos is unlike all of them."""

from ..base import Task, lazy

TASK = Task("anomaly", "Anomalies", comparable=False)
__getattr__ = lazy(__name__, {"Anomaly": "detector", "AnomalyDetector": "detector"})
