"""What a server may be told when it starts: options of the command line, or environment variables of the same names."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from ..backbones import default_backbone

RUN_LIMITS = (
    ("run_hours", float, 12.0, "hours that a training may take; on a public server half an hour at most"),
    ("run_photos", int, 20_000, "photos that a training may have"),
    ("run_days", float, 14.0, "days that ended trainings and their photos are kept"),
)


@dataclass(frozen=True)
class Settings:
    """Settings of a server. host and port None: Gradio's own defaults (127.0.0.1, the first free from 7860).

    backbone: the one to start with. backbone_named: somebody named it; only one that nobody named may be replaced by
        the offline default.
    indexes: folder of retrieval indexes that all visitors share; without one each visitor's are private.
    runs: folder of trainings (by default in the user's cache folder).
    auth: user and password that visitors have to give; None lets everybody in.
    public: strangers use it. No folders of the server, no hub ids or folders typed by hand, no publishing to the hub,
        no long training, and shared indexes can be searched but not changed.
    run_hours, run_photos, run_days: limits of trainings, see RUN_LIMITS.
    photos: folder of the server whose photos visitors may index and train on by name; without one they can only upload.
    trusted_hosts: names under which a proxy serves an app that listens for this machine alone; "*" is any.
    mcp: offer the API's functions to agents too, as tools of the Model Context Protocol.
    examples: tabs open with results of shipped photos; without, nothing runs before somebody asks.
    zero_gpu: this is a Space that lends a GPU for seconds at a time (ZeroGPU), which the app does not use.
    """

    host: str | None = None
    port: int | None = None
    share: bool = False
    backbone: str = ""
    device: str = "auto"
    indexes: str | None = None
    photos: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    runs: str | None = None
    mcp: bool = False
    auth: tuple[str, str] | None = None
    public: bool = False
    run_hours: float = 12.0
    run_photos: int = 20_000
    run_days: float = 14.0
    examples: bool = True
    zero_gpu: bool = False
    backbone_named: bool = False

    @property
    def local(self) -> bool:
        """Return whether only this machine can reach the server, so that its visitors are its owner."""
        return not self.public and not self.share and self.host in (None, "127.0.0.1", "localhost", "::1")

    def runs_folder(self) -> Path:
        """Return the folder of trainings."""
        return Path(self.runs or user_cache_path("dinodemo") / "runs").expanduser()


def add_arguments(parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ) -> None:
    """Add the server's options to a parser; each has an environment variable of its name.

    Args:
        parser: Of the command.
        environment: Gives the defaults.
    """
    host = environment.get("HOST") or environment.get("GRADIO_SERVER_NAME")  # the latter: what Spaces set
    parser.add_argument("--host", default=host, help="address to listen on (0.0.0.0: everybody)")
    parser.add_argument("--port", type=int, default=environment.get("PORT"), help="default: the first free from 7860")
    shared = _is_on(environment.get("SHARE") or environment.get("GRADIO_SHARE"))
    parser.add_argument("--share", action="store_true", default=shared, help="open a public gradio.live address")
    parser.add_argument(
        "--backbone",
        default=environment.get("BACKBONE"),
        help="name, folder or hub id to start with; never replaced by another",
    )
    parser.add_argument("--device", default=environment.get("DEVICE", "auto"), help="auto, cpu, cuda or mps")
    parser.add_argument("--indexes", default=environment.get("INDEXES"), help="folder of indexes for all visitors")
    parser.add_argument("--photos", default=environment.get("PHOTOS"), help="folder of photos that visitors may use")
    parser.add_argument("--runs", default=environment.get("RUNS"), help="folder of trainings")
    for name, kind, default, what in RUN_LIMITS:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=environment.get(name.upper(), default),
            help=f"{what} (default {default})",
        )
    parser.add_argument(
        "--mcp",
        action="store_true",
        default=_is_on(environment.get("MCP")),
        help="offer the API to agents too (extra package)",
    )
    parser.add_argument(
        "--auth",
        default=environment.get("AUTH"),
        metavar="USER:PASSWORD",
        help="ask visitors for these; as the environment variable AUTH other users cannot read it",
    )
    parser.add_argument(
        "--trusted-hosts",
        default=environment.get("TRUSTED_HOSTS", ""),
        metavar="NAME,...",
        help="names under which a proxy on this machine serves the app (*: any); other names are refused",
    )
    parser.add_argument(
        "--examples",
        action=argparse.BooleanOptionalAction,
        default=_is_on(environment.get("EXAMPLES", "1")),
        help="open tabs with results of shipped photos; without, nothing runs before somebody asks",
    )
    public = _is_on(environment.get("PUBLIC", "1" if environment.get("SPACE_ID") else None))
    parser.add_argument(
        "--public",
        action=argparse.BooleanOptionalAction,
        default=public,
        help="for strangers: no folders of this server, no typed hub ids, no publishing, no long "
        "training (the default on a Space)",
    )


def from_arguments(args: argparse.Namespace) -> Settings:
    """Return settings by parsed options; without a backbone, the default that is on this machine.

    Raises:
        ValueError: Options contradict each other or are malformed.
    """
    if args.public and args.photos:
        raise ValueError("a public server takes no folder of photos; leave out either --photos or --public")
    user, colon, password = (args.auth or "").partition(":")
    if args.auth and not (user and colon and password):
        raise ValueError("--auth (or AUTH) has to be USER:PASSWORD, both of at least one character")
    return Settings(
        host=args.host,
        port=args.port,
        share=args.share,
        backbone=args.backbone or default_backbone(),
        backbone_named=bool(args.backbone),
        device=args.device,
        indexes=args.indexes,
        photos=args.photos,
        runs=args.runs,
        trusted_hosts=tuple(name.strip() for name in args.trusted_hosts.split(",") if name.strip()),
        auth=(user, password) if args.auth else None,
        public=args.public,
        mcp=args.mcp,
        examples=args.examples,
        zero_gpu=_is_on(os.environ.get("SPACES_ZERO_GPU")),
        **{name: getattr(args, name) for name, *_ in RUN_LIMITS},
    )


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Return the settings of a command line (sys.argv by default)."""
    parser = argparse.ArgumentParser("app.py", description="dinodemo: self-supervised vision features on your pictures")
    add_arguments(parser)
    try:
        return from_arguments(parser.parse_args(argv))
    except ValueError as error:
        parser.error(str(error))


def _is_on(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "yes")
