"""From a folder of photos to a better one, without labels: what to leave out and why, and what to take.

Nothing is deleted or written; the outcome is a list of files. After the LVD-142M recipe (DINOv2, arXiv 2304.07193,
section 3: deduplication, retrieval from seeds) and the balanced sampling of arXiv 2405.15613.
"""

from .copies import near_copies
from .examine import Examination, examine
from .select import balanced, clusters, map2d, more_like
from .suggest import Suggestion, Thresholds, kept, suggest

__all__ = [
    "Examination",
    "Suggestion",
    "Thresholds",
    "balanced",
    "clusters",
    "examine",
    "kept",
    "map2d",
    "more_like",
    "near_copies",
    "suggest",
]
