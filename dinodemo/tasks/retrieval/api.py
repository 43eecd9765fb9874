"""The API's `retrieve`: it takes no browser's key to its own indexes; callers reach those that the server shares."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...web.api_values import (
    MOST_FILES,
    RESOLUTIONS,
    File,
    as_file,
    check_backbone,
    check_str,
    check_strs,
    name_of,
    read_files,
    read_path,
    read_photo,
)
from ...web.owner import new_owner
from . import draw
from .index_store import IndexStore

if TYPE_CHECKING:  # they need torch and the database, which are loaded only once the page is served
    from ...web.services import Services
    from .index import ImageIndex


def functions(services: "Services") -> tuple[Callable, ...]:
    """Return what programs may call."""
    return (RetrievalApi(services, IndexStore(services)).retrieve,)


@dataclass(frozen=True)
class RetrievalApi:
    """The API of this task; its docstrings are what callers read."""

    services: "Services"
    indexes: IndexStore

    def retrieve(
        self,
        photo: File,
        index: str = "",
        photos: list[File] | None = None,
        count: int = draw.COUNT.default,
        rerank: bool = draw.RERANK.default,
        labels: list[str] | None = None,
        path: str = "",
        backbone: str = "",
    ) -> tuple[list[File], File, dict]:
        """Find the photos most like one, in an index that the server shares or among photos sent along.

        Returns thumbnails (.jpg), the hits (.json) and the hits, best first. Photos sent along are indexed for this
        call only; the names of hits among them begin with their number.

        Parameters:
            photo: the one to search with
            index: name of a shared index
            photos: instead of an index: up to 50 photos
            count: hits at most, 1 to 100
            rerank: compare the parts of the first 50 too; slower
            labels: only photos of these labels
            path: only photos whose path contains this
            backbone: of photos sent along; a name that `dinodemo weights list` tells, empty is the server's own
        """
        from .snapshot import Filter

        count, rerank = draw.COUNT.check(count), draw.RERANK.check(rerank)
        where = Filter(labels=tuple(check_strs(labels, "labels")), path=check_str(path, "path").strip())
        files, index = read_files(photos, "photos", MOST_FILES), check_str(index, "index")
        if bool(files) == bool(index):
            raise ValueError("send either the name of an index or photos to search")
        query = read_photo(photo, "photo")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            opened, left_out = self._gather(files, folder, backbone) if files else (self._shared(index), [])
            hits = opened.search(query, k=count, rerank=rerank, where=where)
            recipe = opened.recipe
            search = draw.Search(query, index, recipe.backbone if recipe else "", tuple(hits), 0.0, None)
            answer: dict[str, Any] = {"searched": len(opened), "left_out": left_out}
        name, content = draw.hits_json(search)
        answer = {**json.loads(content), **answer}
        for hit in answer["hits"]:
            hit["photo"] = hit.pop("path")  # clients take whatever has a "path" for a file to be fetched
        thumbnails = [as_file((f"{i:03d}.jpg", hit.thumbnail)) for i, hit in enumerate(hits, start=1)]
        return thumbnails, as_file((name, content)), answer

    def _shared(self, name: str) -> "ImageIndex":
        """Open an index that the server shares with everybody."""
        keys = [key for _, key in self.indexes.choices(None)]
        if f"shared:{name}" not in keys:
            names = ", ".join(key.removeprefix("shared:") for key in keys)
            message = f"it shares {names}" if names else "it shares none; send the photos to search instead"
            raise ValueError(f"this server shares no index of that name; {message}")
        return self.indexes.open(new_owner(), f"shared:{name}")  # a fresh key: nobody's own indexes open to it

    def _gather(self, files: list[File], folder: str, backbone: str) -> tuple["ImageIndex", list[dict]]:
        """Index photos for one call; returns the index and what could not be read."""
        from .index import ImageIndex

        name, _ = check_backbone(self.services, backbone, RESOLUTIONS[0])
        paths = [read_path(file, f"photo {i}") for i, file in enumerate(files, start=1)]
        named = [
            (f"{i}/{name_of(file, path)}", path.read_bytes())
            for i, (file, path) in enumerate(zip(files, paths, strict=True), start=1)
        ]
        index = ImageIndex(folder, self.services.pool.get(name))
        report = index.add(named)
        left_out = [{"photo": int(file.split("/")[0]), "reason": reason} for file, reason in report.problems]
        if not report.added:
            raise ValueError(f"none of the photos can be read; the first one: {left_out[0]['reason']}")
        return index, left_out
