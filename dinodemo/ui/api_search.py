"""What the API finds: a thing on photos, photos that are alike, parts that agree. Each docstring is what callers read.

Nothing here takes a browser's key to its own indexes: callers reach those that the server shares, and no others.
"""

import json
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..images import load_photo
from ..render import png_bytes
from . import compare_view, retrieval_view, segmentation_view
from .api_values import (
    RESOLUTIONS,
    File,
    made,
    name_of,
    network,
    number,
    one_of,
    read_files,
    read_path,
    read_photo,
    text,
    texts,
    truth,
    whole,
)
from .compare_tab import compare as compute_pair
from .errors import as_message
from .index_shelf import IndexShelf
from .memory import new_owner
from .segmentation_search import DEFAULT_NAME, MOST_TARGETS, fit
from .segmentation_view import Reference
from .services import Services, made_with, made_with_name, shrink, stem

if TYPE_CHECKING:  # they need torch and the database, which are loaded only once the page is served
    from ..tasks.retrieval import ImageIndex

MOST_REFERENCES = 8
MODELS = {model or "any": name for name, model in compare_view.MODELS.items()}


@dataclass(frozen=True)
class SearchApi:
    """Hold what these functions need; nothing of any one person."""

    services: Services
    indexes: IndexShelf

    def segment(
        self, references: list[File], masks: list[File], photos: list[File], negatives: list[File] | None = None,
        threshold: float = 0.5, presence: float = 0.5, backbone: str = "", resolution: int = 518,
    ) -> tuple[list[File], File, dict]:  # fmt: skip
        """Find on photos what masks show on reference photos. Returns masks (.png), their facts (.json), the facts.

        Photos that cannot be read are named in the facts, and the others go on.

        Parameters:
            references: 1 to 8 photos of the thing
            masks: one for each reference: white, coloured or opaque where the thing is
            photos: 1 to 50 photos to search
            negatives: up to 8 photos without the thing
            threshold: 0 to 1; higher means smaller masks
            presence: 0 to 1; photos whose presence is below it get an empty mask, 0 always paints
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        name, side = network(self.services, backbone, resolution)
        look = segmentation_view.Look(number(threshold, "threshold", 0, 1), 0.5, segmentation_view.VIEWS[0],
                                      number(presence, "presence", 0, 1))  # fmt: skip
        files = read_files(photos, "photos", MOST_TARGETS, least=1)
        segmenter = fit(self.services, _references(references, masks), _negatives(negatives), name, side)
        words, pictures, told, left_out = made_with_name(segmenter.backbone_), [], [], []
        for i, file in enumerate(files, start=1):
            try:
                path = read_path(file, f"photo {i}")
                photo = load_photo(path, name_of(file, path))
                small = shrink(photo)
                result = segmentation_view.Result(small, "", photo.size, segmenter.predict(small))
            except ValueError as error:
                left_out.append({"photo": i, "reason": as_message(error).message})
                continue
            mask, facts = segmentation_view.full_mask(result, look)
            told.append({"photo": i, "name": photo.name, **facts})
            pictures.append(made((f"{i:02d}-{stem(photo.name)}-mask.png", png_bytes(np.uint8(255) * mask, words))))
        summary = {"backbone": segmenter.backbone_, "made_with": words, "photos": told, "left_out": left_out}
        return pictures, made(("masks.json", json.dumps(summary).encode())), summary

    def retrieve(
        self, photo: File, index: str = "", photos: list[File] | None = None, count: int = 12, rerank: bool = False,
        labels: list[str] | None = None, path: str = "", backbone: str = "",
    ) -> tuple[list[File], File, dict]:  # fmt: skip
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
        from ..tasks.retrieval import Filter

        count, rerank = whole(count, "count", 1, 100), truth(rerank, "rerank")
        where = Filter(labels=tuple(texts(labels, "labels")), path=text(path, "path").strip())
        files, index = read_files(photos, "photos", MOST_TARGETS), text(index, "index")
        if bool(files) == bool(index):
            raise ValueError("send either the name of an index or photos to search")
        query = read_photo(photo, "photo")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            opened, left_out = self._gather(files, folder, backbone) if files else (self._shared(index), [])
            hits = opened.search(query, k=count, rerank=rerank, where=where)
            search = retrieval_view.Search(query, index, opened.recipe.backbone, tuple(hits), 0.0, None)
            told = {"searched": len(opened), "left_out": left_out}
        name, content = retrieval_view.hits_json(search)
        told = {**json.loads(content), **told}
        for hit in told["hits"]:
            hit["photo"] = hit.pop("path")  # clients take whatever has a "path" for a file to be fetched
        thumbnails = [made((f"{i:03d}.jpg", hit.thumbnail)) for i, hit in enumerate(hits, start=1)]
        return thumbnails, made((name, content)), told

    def compare(
        self, first: File, second: File, count: int = 40, least: float = 0.4, model: Literal[tuple(MODELS)] = "any",
        placeless: bool = True, backbone: str = "", resolution: int = 518,
    ) -> tuple[File, File, dict]:  # fmt: skip
        """Find the parts of two photos that agree. Returns a drawing (.png), the pairs (.csv) and a summary.

        Parameters:
            first: a picture of any usual format
            second: another
            count: pairs that are drawn, 1 to 200
            least: cosine of a pair, -1 to 1
            model: only pairs that one movement explains: homography (a plane, or one view point) or affine
            placeless: ignore where in the picture a patch lies
            backbone: a name that `dinodemo weights list` tells; empty is the server's own
            resolution: the network sees about this number squared of pixels, 56 to 1022
        """
        key = network(self.services, backbone, resolution)
        look = compare_view.Look(whole(count, "count", 1, 200), number(least, "least", -1, 1),
                                 MODELS[one_of(model, "model", list(MODELS))])  # fmt: skip
        photos = (read_photo(first, "first"), read_photo(second, "second"))
        pair = compute_pair(self.services, photos, None, truth(placeless, "placeless"), *key)
        told = {"backbone": pair.features[0].backbone, "made_with": made_with(pair.features[0]),
                "cls_cosine": round(compare_view.similarity(*pair.features), 5), "mutual": len(pair.matches),
                "chosen": len(compare_view.chosen(pair, look))}  # fmt: skip
        return made(compare_view.lines_file(pair, look)), made(compare_view.table_file(pair, look)), told

    def _shared(self, name: str) -> "ImageIndex":
        """Open an index that the server shares with everybody."""
        keys = [key for _, key in self.indexes.choices(None)]
        if f"shared:{name}" not in keys:
            names = ", ".join(key.removeprefix("shared:") for key in keys)
            told = f"it shares {names}" if names else "it shares none; send the photos to search instead"
            raise ValueError(f"this server shares no index of that name; {told}")
        return self.indexes.open(new_owner(), f"shared:{name}")  # a fresh key: nobody's own indexes open to it

    def _gather(self, files: list[File], folder: str, backbone: str) -> tuple["ImageIndex", list[dict]]:
        """Index photos for one call; returns the index and what could not be read."""
        from ..tasks.retrieval import ImageIndex

        name, _ = network(self.services, backbone, RESOLUTIONS[0])
        paths = [read_path(file, f"photo {i}") for i, file in enumerate(files, start=1)]
        named = [(f"{i}/{name_of(file, path)}", path.read_bytes())
                 for i, (file, path) in enumerate(zip(files, paths, strict=True), start=1)]  # fmt: skip
        index = ImageIndex(folder, self.services.pool.get(name))
        report = index.add(named)
        left_out = [{"photo": int(file.split("/")[0]), "reason": reason} for file, reason in report.problems]
        if not report.added:
            raise ValueError(f"none of the photos can be read; the first one: {left_out[0]['reason']}")
        return index, left_out


def _references(references: list[File], masks: list[File]) -> list[Reference]:
    from ..tasks.segmentation.masks import read_mask_file

    photos = read_files(references, "references", MOST_REFERENCES, least=1)
    drawn = read_files(masks, "masks", MOST_REFERENCES)
    if len(photos) != len(drawn):
        raise ValueError(f"each reference needs its mask; there are {len(photos)} references and {len(drawn)} masks")
    found = []
    for i, (photo, mask) in enumerate(zip(photos, drawn, strict=True), start=1):
        given = read_photo(photo, f"reference {i}")
        this = read_mask_file(read_path(mask, f"mask {i}"), given)
        found.append(Reference(given, this, np.zeros_like(this), DEFAULT_NAME))
    return found


def _negatives(files: list[File] | None) -> list[Reference]:
    given = [read_photo(file, f"negative {i}")
             for i, file in enumerate(read_files(files, "negatives", MOST_REFERENCES), start=1)]  # fmt: skip
    return [Reference(photo, np.ones(photo.size, bool), np.zeros(photo.size, bool), DEFAULT_NAME) for photo in given]
