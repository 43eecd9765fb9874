"""Backbones: the table of networks, and how their weights are found, fetched, built and checked."""

from .downloads import DownloadPending, Downloads
from .find import default_backbone, fetch, find_local, imported_names, needs_download, resolve
from .hub import (
    DiskProblem,
    DownloadCancelled,
    DownloadDamaged,
    HubError,
    HubRefused,
    HubUnreachable,
    Progress,
)
from .registry import (
    BACKBONES,
    DEFAULT,
    OFFLINE_DEFAULT,
    SALIENCY,
    Backbone,
    canonical_name,
    describe,
    is_complete,
    is_hub_id,
    weights_root,
)

__all__ = [
    "BACKBONES",
    "DEFAULT",
    "OFFLINE_DEFAULT",
    "SALIENCY",
    "Backbone",
    "DiskProblem",
    "DownloadCancelled",
    "DownloadDamaged",
    "DownloadPending",
    "Downloads",
    "HubError",
    "HubRefused",
    "HubUnreachable",
    "Progress",
    "canonical_name",
    "default_backbone",
    "describe",
    "fetch",
    "find_local",
    "imported_names",
    "is_complete",
    "is_hub_id",
    "needs_download",
    "resolve",
    "weights_root",
]
