"""Which indexes a person can use: one's own, private to one's browser, and those the server shares with everybody."""

import hashlib
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...io import clock
from ...io.files import lock, resource_folder

if TYPE_CHECKING:
    from ...web.services import Services
    from . import ImageIndex

KEPT_OPEN = 8  # indexes whose vectors stay in memory
PRIVATE_AGE = 48 * 3600  # seconds after the last use until a private index is removed
MOST_PRIVATE = 20  # of one person
UPLOADS = ".photos"  # beside the indexes: the files that were uploaded for them
EXAMPLES = "Free photos"  # of the index that everybody can search
COMPARISONS = ".beside"  # the same photos, as second backbones see them
_OWNER = re.compile(r"[A-Za-z0-9_-]{22,64}")
_NAME = re.compile(r"[\w][\w .()-]{0,59}")


def private_root() -> Path:
    """Return the folder of all private indexes."""
    return Path(tempfile.gettempdir()) / "dinodemo-indexes"


class IndexStore:
    """Open, make and delete indexes. A key is "mine:NAME" or "shared:NAME".

    Args:
        services: Give the settings and the engines.
        root: Folder of the private indexes; by default in the data folder.
    """

    def __init__(self, services: "Services", root: Path | None = None):
        self.services = services
        self.shared = Path(services.settings.indexes).expanduser() if services.settings.indexes else None
        self._root = root or private_root()
        self.examples: Path | None = None  # the folder of the index of free photos, once it is there
        self._open: OrderedDict[str, ImageIndex] = OrderedDict()
        self._lock = threading.Lock()

    def choices(self, owner: str | None) -> list[tuple[str, str]]:
        """Return (label, key) of what a person can use, one's own first."""
        rows = [(name, f"mine:{name}") for name in _names(self._private(owner))] if owner else []
        rows += [(f"{name} · shared", f"shared:{name}") for name in _names(self.shared)]
        return rows + [(f"{name} · example", f"example:{name}") for name in _names(self.examples)]

    def new_key(self, owner: str, name: str) -> str:
        """Return the key of a new index; on a server with a shared folder it is for everybody.

        Args:
            owner: Whose it is.
            name: As the person wrote it.

        Raises:
            ValueError: The name is taken or cannot be one.
        """
        name = " ".join(name.split())
        if not _NAME.fullmatch(name):
            raise ValueError("an index needs a name of letters, digits, spaces, dots or dashes, at most 60 of them")
        shared = self.shared and not self.services.settings.public
        key = f"{'shared' if shared else 'mine'}:{name}"
        if key in [known for _, known in self.choices(owner)]:
            raise ValueError(f"there is an index called {name} already; choose it from the list, or another name")
        if not shared and len(self.choices(owner)) >= MOST_PRIVATE:
            raise ValueError(f"{MOST_PRIVATE} indexes are the most that are kept; delete one first")
        return key

    def path(self, owner: str, key: str | None) -> Path:
        """Return where an index lies.

        Args:
            owner: Who asks.
            key: Of the index.

        Raises:
            ValueError: The key is not this person's.
        """
        kind, _, name = (key or "").partition(":")
        roots = {"mine": self._private(owner), "shared": self.shared, "example": self.examples}
        root = roots.get(kind)
        if root is None or not _NAME.fullmatch(name):
            raise ValueError("no index is chosen; choose one from the list, or make a new one in the tab Build")
        return root / name

    def check_may_change(self, key: str | None) -> None:
        """Raise ValueError for an index that visitors can search but not change."""
        if (key or "").startswith("example:"):
            raise ValueError("the index of examples cannot be changed; name a new one of your own")
        if self.services.settings.public and (key or "").startswith("shared:"):
            raise ValueError("this index is everybody's and cannot be changed here; name a new one of your own")

    def uploads(self, owner: str, key: str | None) -> Path:
        """Return the folder that keeps the files uploaded for an index.

        Args:
            owner: Who asks.
            key: Of the index.

        Raises:
            ValueError: The key is not this person's.
        """
        path = self.path(owner, key)
        return path.parent / UPLOADS / path.name

    def open(self, owner: str, key: str | None, backbone: str | None = None) -> "ImageIndex":
        """Return an index with the backbone that made it.

        Args:
            owner: Who asks.
            key: Of the index.
            backbone: Of a new index.

        Raises:
            ValueError: The key is not this person's.
        """
        from . import ImageIndex  # not above: it brings the database

        path = self.path(owner, key)
        index = self._opened(path, lambda: ImageIndex(path))
        recipe = index.recipe
        name = recipe.backbone if recipe else backbone
        if name is None:
            raise ValueError(f"{path.name} is empty; add photos in the tab Build")
        index.engine = self.services.pool.get(name)
        _touch(path.parent)
        return index

    def open_comparison(self, owner: str, key: str, backbone: str) -> "ImageIndex":
        """Return this person's second index of the same photos, for another backbone; see `ImageIndex.follow`.

        Args:
            owner: Who asks.
            key: Of the first index.
            backbone: Of the second one.
        """
        from . import ImageIndex

        engine, resolution = self.services.pool.get(backbone), self.open(owner, key).recipe.resolution
        which = hashlib.sha256(f"{engine.backbone.name} {resolution}".encode()).hexdigest()[:16]
        path = self._comparison(owner, key) / which
        return self._opened(path, lambda: ImageIndex(path, engine, resolution))

    def make_examples(self, backbone: str) -> None:
        """Index the shipped photos with a backbone; once made, the index stays on disk."""
        from . import ImageIndex

        engine = self.services.pool.get(backbone)
        root = self.services.openings.folder / f"index-{engine.identity.sha256[:16]}"
        root.mkdir(parents=True, exist_ok=True)
        with lock(root / ".lock", timeout=600):  # several servers may start at once
            ImageIndex(root / EXAMPLES, engine).add([(name, path.read_bytes()) for name, path in free_photos()])
        self.examples = root

    def delete(self, owner: str, key: str | None) -> None:
        """Delete an index and the files that were uploaded for it.

        Args:
            owner: Who asks.
            key: Of the index.

        Raises:
            ValueError: The key is not this person's.
        """
        self.check_may_change(key)
        path = self.path(owner, key)
        comparison = self._comparison(owner, key)
        with self._lock:
            for known in [k for k in self._open if k == str(path) or comparison in Path(k).parents]:
                del self._open[known]
        for folder in (path, self.uploads(owner, key), comparison):
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove private indexes that nobody has used for long."""
        for folder in self._root.iterdir() if self._root.is_dir() else ():
            if clock.age(folder.stat().st_mtime) > PRIVATE_AGE:
                shutil.rmtree(folder, ignore_errors=True)

    def _opened(self, path: Path, make: Callable[[], "ImageIndex"]) -> "ImageIndex":
        with self._lock:
            index = self._open.pop(str(path), None) or make()
            self._open[str(path)] = index
            while len(self._open) > KEPT_OPEN:
                self._open.popitem(last=False)
        return index

    def _comparison(self, owner: str, key: str | None) -> Path:
        return self._private(owner) / COMPARISONS / (key or "").partition(":")[0] / self.path(owner, key).name

    def _private(self, owner: str) -> Path:
        if not isinstance(owner, str) or not _OWNER.fullmatch(owner):
            raise ValueError("this page has lost its key to your indexes; reload it")
        # hashed: a path may be seen by others, in a message or a file, and must not tell the key
        return self._root / hashlib.sha256(owner.encode()).hexdigest()[:32]


def free_photos() -> list[tuple[str, Path]]:
    """List (name, path) of the shipped photos, two of the many cups among them."""
    assets = resource_folder("assets")
    kinds = {"photos": "*.jpg", "cups": "segmentation/*.jpg", "more cups": "anomaly/*_1.jpg"}
    return [(f"{kind}/{path.name}", path) for kind, pattern in kinds.items() for path in sorted(assets.glob(pattern))]


def _names(folder: Path | None) -> list[str]:
    if folder is None or not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and _NAME.fullmatch(p.name))


def _touch(folder: Path) -> None:
    if folder.is_dir():
        folder.touch()
