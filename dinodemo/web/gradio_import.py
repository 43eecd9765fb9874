"""Import Gradio without what it does for editors: half of its import writes type stubs beside its own files.

`gradio.component_meta` parses each component's source, renders a stub and compares it with the one on the disk, at
every start; `gradio.events` compiles a template for each docstring. Neither is needed to serve a page, and an
installation may not be writable. Both modules are changed right after they have run, and nothing else is.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def skip_editor_support() -> None:
    """Make a later import of Gradio skip its type stubs; does nothing where Gradio has been imported already."""
    if "gradio" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Find the modules of `_CHANGES` where they are, and have them changed once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the usual place of such a module, with a loader of this module's; None for all others."""
        if fullname not in _CHANGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _CHANGES[fullname])
        return spec


class _Loader(Loader):
    """Load as the usual loader does, then change the module."""

    def __init__(self, usual: Loader, change):
        self._usual, self._change = usual, change

    def __getattr__(self, name: str):
        return getattr(self._usual, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the usual loader makes."""
        return self._usual.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then change it."""
        self._usual.exec_module(module)
        self._change(module)


def _without_stubs(module: ModuleType) -> None:
    if hasattr(module, "create_or_modify_pyi"):
        module.create_or_modify_pyi = lambda *_args, **_options: None  # type: ignore[attr-defined]


def _with_plain_docs(module: ModuleType) -> None:
    def set_doc(listener, component: str) -> None:
        if listener.listener.__doc__:
            listener.listener.__doc__ = listener.listener.__doc__.replace("{{ component }}", component)

    if hasattr(getattr(module, "EventListener", None), "set_doc"):
        module.EventListener.set_doc = set_doc


_CHANGES = {"gradio.component_meta": _without_stubs, "gradio.events": _with_plain_docs}
