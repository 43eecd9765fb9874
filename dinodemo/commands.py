"""What the commands over photos share: options, photos read ahead, results that are there already, the summary."""

import argparse
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from .io.exits import EXIT_HELP, exit_status
from .tasks.base import RESOLUTION

if TYPE_CHECKING:
    from .engine.engine import Engine
    from .io.images import Photo
    from .tasks.retrieval.sources import Item, Problem

AHEAD = 4  # photos that may be decoded before they are needed
THREADS = 2
T = TypeVar("T")
R = TypeVar("R")
Made = tuple[dict[str, bytes], dict]  # content of each file by its ending, facts for the summary


def add_command(
    commands, name: str, run: Callable, words: str, examples: Sequence[str], former: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Add a command with examples in its help, and the options that all such commands have.

    Args:
        commands: Of argparse's `add_subparsers`.
        name: Of the command.
        run: Function of the parsed arguments.
        words: A help line.
        examples: Whole command lines.
        former: Names that it had, which go on working for a version.

    Returns:
        The command's parser.
    """
    epilog = "examples:\n" + "".join(f"  dinodemo {name} {line}\n" for line in examples) + f"\n{EXIT_HELP}"
    parser = commands.add_parser(
        name,
        aliases=former,
        help=words,
        description=f"{words[0].upper()}{words[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--backbone", help="name, folder, finished run or hub id (default: the one on this machine)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--backend", default="auto", help="auto, torch or openvino: what runs the network on a CPU")
    parser.add_argument("--overwrite", action="store_true", help="make again what is there already")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(run=run, command=name)
    return parser


def add_photos(
    parser: argparse.ArgumentParser, out: str, resolution: int = RESOLUTION.default, kind: Callable = Path
) -> None:
    """Add the photos that come in, where results go, and the resolution.

    Args:
        parser: Of the command.
        out: Help of --out.
        resolution: Its default, px.
        kind: What makes the value of --out of a text.
    """
    parser.add_argument("photos", nargs="+", help="photos, folders (with those inside) or zips")
    parser.add_argument("--out", required=True, type=kind, help=out)
    add_resolution(parser, resolution)


def add_resolution(parser: argparse.ArgumentParser, resolution: int = RESOLUTION.default) -> None:
    """Add the resolution alone."""
    parser.add_argument(
        "--resolution",
        type=int,
        default=resolution,
        help=f"{RESOLUTION.help} (default: %(default)s)",
    )


def number(low: float, high: float, kind: type = float) -> Callable[[str], float]:
    """Return an argparse type that takes numbers of a range.

    Args:
        low: Least number.
        high: Greatest number.
        kind: int or float.
    """

    def read(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:  # also false for nan
            raise argparse.ArgumentTypeError(f"must be from {low:g} to {high:g}, got {text}")
        return value

    read.__name__ = "whole number" if kind is int else "number"
    return read


def open_engine(args: argparse.Namespace) -> "Engine":
    """Return the engine of the backbone that was asked for, which can run at the resolution."""
    from .engine.engine import Engine

    engine = Engine(args.backbone, device=args.device, backend=args.backend)
    engine.grid((1, 1), args.resolution)
    if engine.backbone.notice:
        print(engine.backbone.notice, file=sys.stderr)
    return engine


@dataclass(frozen=True)
class Target:
    """Name a photo, and what its results are called."""

    item: "Item"
    name: str  # of its results in the folder of results: sub-folders and a stem

    def read(self) -> "Photo":
        """Return the photo; raises ValueError and what file systems and zips raise."""
        from .io.images import load_photo

        return load_photo(self.item.read(), self.item.name)


@dataclass
class Batch:
    """A command's photos, and what came of each."""

    args: argparse.Namespace
    targets: list[Target]
    left_out: list["Problem"]
    made: list[dict] = field(default_factory=list)
    kept: int = 0

    def missing(self, endings: Sequence[str]) -> list[Target]:
        """Return the photos that lack a result of one of these endings; with --overwrite, all."""
        return [t for t in self.targets if self.args.overwrite or not all(self.path(t, e).exists() for e in endings)]

    def path(self, target: Target, ending: str) -> Path:
        """Return where a photo's result lies.

        Args:
            target: The photo.
            ending: Of the file's name.
        """
        return self.args.out / f"{target.name}-{ending}"

    def run(self, endings: Sequence[str], make: Callable[["Photo"], Made]) -> None:
        """Make the missing results photo by photo; photos that cannot be read are left out.

        Args:
            endings: Of the files that a photo gives.
            make: Makes the contents of these files.
        """
        todo = self.missing(endings)
        self.kept = len(self.targets) - len(todo)
        for target, photo in progress(read_ahead(todo, Target.read), len(todo)):
            try:
                if isinstance(photo, Exception):
                    raise ValueError(str(photo))
                files, facts = make(photo)
            except ValueError as error:
                self.left_out.append((target.item.path, str(error)))
                continue
            paths = [self.path(target, ending) for ending in files]
            for path, content in zip(paths, files.values(), strict=True):
                save(path, content)
            self.made.append({"photo": target.item.path, "files": [str(path) for path in paths], **facts})

    def finish(self, engine: "Engine", **facts) -> int:
        """Print what was done; returns the exit status.

        Args:
            engine: That ran.
            **facts: For the summary.
        """
        summary = {"photos": self.made, "kept": self.kept, **facts}
        message = f"{len(self.made)} done, {self.kept} were there already; results in {self.args.out}"
        return report(self.args, engine, summary, message, self.left_out)


def report(args: argparse.Namespace, engine: "Engine", summary: dict, message: str, left_out: Iterable = ()) -> int:
    """Print a summary as JSON, or a sentence and what was left out; returns the exit status.

    Args:
        args: Of the command.
        engine: That ran.
        summary: For programs.
        message: For people.
        left_out: (file, reason) each.
    """
    left_out = list(left_out)
    if args.json:
        head = {
            "command": args.command,
            "backbone": engine.backbone.name,
            "identity": asdict(engine.identity),
            "backend": getattr(engine, "backend", None),  # a cluster's machines choose their own
            "resolution": args.resolution,
        }
        problems = [{"photo": file, "reason": reason} for file, reason in left_out]
        print(json.dumps({**head, **summary, "left_out": problems}))
    else:
        print(message)
        for file, reason in left_out:
            print(f"left out: {file}: {reason}", file=sys.stderr)
    return exit_status(summary_count(summary), len(left_out))


def summary_count(summary: dict) -> int:
    """Return how many photos of a summary went well or had been done before."""
    photos = summary.get("photos", 1)
    return (photos if isinstance(photos, int) else len(photos)) + summary.get("kept", 0)


@contextmanager
def open_batch(args: argparse.Namespace) -> Iterator[Batch]:
    """List the photos that were asked for. Zips stay open inside the `with`.

    Yields:
        The photos.

    Raises:
        ValueError: There are none.
    """
    from .tasks.retrieval.sources import open_source

    sources = [_absolute(source) for source in args.photos]
    folders = [source for source in sources if source.is_dir()]
    out = _absolute(args.out)
    if out in folders:
        raise ValueError(
            f"--out {args.out} is the folder of the photos, and results would pass for photos the next "
            "time; choose another folder, one inside it will do"
        )
    inside = any(out.is_relative_to(folder) for folder in folders)
    with open_source(sources) as (items, problems):
        if inside:  # earlier results
            items = [item for item in items if not Path(item.path).is_relative_to(out)]
            problems = [problem for problem in problems if not Path(problem[0]).is_relative_to(out)]
        items = list({item.path: item for item in items}.values())
        if not items and not problems:
            raise ValueError(f"there are no photos in {', '.join(args.photos)}; name a folder, a zip or photos")
        yield Batch(args, name_results(items, sources), list(problems))


def name_results(items: Sequence["Item"], sources: Sequence[Path]) -> list[Target]:
    """Name each photo's results by its path below what was given; those of two photos never have the same name."""
    roots = [s if s.is_dir() or s.suffix.lower() == ".zip" else s.parent for s in sources]
    common = os.path.commonpath(roots)
    names = [PurePosixPath(item.path).relative_to(PurePosixPath(Path(common).as_posix())) for item in items]
    count = Counter(str(name.with_suffix("")).casefold() for name in names)  # some file systems know no case
    return [
        Target(item, str(name.with_suffix("") if count[str(name.with_suffix("")).casefold()] == 1 else name))
        for item, name in zip(items, names, strict=True)
    ]


def read_ahead(todo: Iterable[T], read: Callable[[T], R], ahead: int = AHEAD) -> Iterator[tuple[T, R | Exception]]:
    """Yield (what to read, the result or the error of reading it), in order; threads read while the caller works.

    Args:
        todo: What to read.
        read: Reads one of them.
        ahead: How many are read at once.
    """
    from .io.images import DAMAGE

    def attempt(one: T) -> R | Exception:
        try:
            return read(one)
        except DAMAGE as error:  # what file systems raise is among it, and the ValueError of a bad photo
            return error

    pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="read")
    pending: deque = deque()
    try:
        for one in todo:
            pending.append((one, pool.submit(attempt, one)))
            if len(pending) >= ahead:
                first, job = pending.popleft()
                yield first, job.result()
        for first, job in pending:
            yield first, job.result()
    finally:  # also when the caller stops early; waits, because the zip that threads read is closed next
        pool.shutdown(wait=True, cancel_futures=True)


def progress(steps: Iterable[T], total: int) -> Iterable[T]:
    """Return the steps with a bar on a terminal.

    Args:
        steps: To iterate over.
        total: Their number.
    """
    from tqdm import tqdm

    return tqdm(steps, total=total, unit="photo", disable=not sys.stderr.isatty())


def into(bar) -> Callable[[int, int], None]:
    """Return a progress(done, total) that moves a bar of tqdm."""

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress


def save(path: Path, content: bytes) -> None:
    """Write a result whole or not at all; raises RuntimeError when that cannot be.

    Args:
        path: To write.
        content: Of the file.
    """
    from .io.files import write_file

    try:
        write_file(path, content)
    except OSError as error:
        raise RuntimeError(f"{path} cannot be written ({error.strerror or error}); choose another --out") from error


def add_look(parser: argparse.ArgumentParser) -> None:
    """Add what changes the look of a map over a photo."""
    from .io.render import COLOUR_MAPS

    parser.add_argument("--colour-map", choices=list(COLOUR_MAPS), default="inferno", help="default: %(default)s")
    parser.add_argument("--squares", action="store_true", help="one square a patch instead of a smooth map")
    parser.add_argument(
        "--longest", type=number(16, 12000, int), help="pixels of a picture's longer side (default: the photo's own)"
    )


def _absolute(source: str | Path) -> Path:
    path = Path(source).expanduser()
    return path.resolve() if ".." in path.parts else path.absolute()
