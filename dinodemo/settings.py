"""What a server may be told when it starts: options of the command line, or environment variables of the same names."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .backbones import default_backbone


@dataclass(frozen=True)
class Settings:
    """Hold a server's settings. host and port None: Gradio's own defaults (127.0.0.1, the first free from 7860).

    indexes: folder of retrieval indexes that all visitors share; without one each visitor's are private.
    runs: folder of trainings (by default in the user's cache folder).
    photos: folder of the server whose photos visitors may index by name; without one they can only upload.
    """

    host: str | None = None
    port: int | None = None
    share: bool = False
    backbone: str = ""
    device: str = "auto"
    indexes: str | None = None
    photos: str | None = None
    runs: str | None = None


def add_arguments(parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ) -> None:
    """Add the server's options to a parser; each has an environment variable of its name."""
    parser.add_argument("--host", default=environment.get("HOST"), help="address to listen on (0.0.0.0: everybody)")
    parser.add_argument("--port", type=int, default=environment.get("PORT"), help="default: the first free from 7860")
    shared = environment.get("SHARE", "").lower() in ("1", "true", "yes")
    parser.add_argument("--share", action="store_true", default=shared, help="open a public gradio.live address")
    parser.add_argument("--backbone", default=environment.get("BACKBONE"), help="name, folder or hub id to start with")
    parser.add_argument("--device", default=environment.get("DEVICE", "auto"), help="auto, cpu, cuda or mps")
    parser.add_argument("--indexes", default=environment.get("INDEXES"), help="folder of indexes for all visitors")
    parser.add_argument("--photos", default=environment.get("PHOTOS"), help="folder of photos that visitors may index")
    parser.add_argument("--runs", default=environment.get("RUNS"), help="folder of trainings")


def from_arguments(args: argparse.Namespace) -> Settings:
    """Turn parsed options into settings; without a backbone, the default that is on this machine."""
    backbone = args.backbone or default_backbone()
    return Settings(args.host, args.port, args.share, backbone, args.device, args.indexes, args.photos, args.runs)


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Parse a command line (sys.argv by default) into settings."""
    parser = argparse.ArgumentParser("app.py", description="dinodemo: self-supervised vision features on your pictures")
    add_arguments(parser)
    return from_arguments(parser.parse_args(argv))
