"""The tasks: the list that page, API, command line, docs and tests walk; a new one is a folder and a line here."""

from .anomaly import TASK as ANOMALY
from .attention import TASK as ATTENTION
from .base import Option, Task
from .classify import TASK as CLASSIFY
from .compare import TASK as COMPARE
from .depth import TASK as DEPTH
from .finetune import TASK as FINETUNE
from .lens import TASK as LENS
from .pca import TASK as PCA
from .retrieval import TASK as RETRIEVAL
from .segmentation import TASK as SEGMENTATION

TASKS: tuple[Task, ...] = (
    ATTENTION,
    LENS,
    PCA,
    SEGMENTATION,
    DEPTH,
    RETRIEVAL,
    CLASSIFY,
    COMPARE,
    ANOMALY,
    FINETUNE,
)

__all__ = ["TASKS", "Option", "Task"]
