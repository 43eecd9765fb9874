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
    mcp: offer the API's functions to agents too, as tools of the Model Context Protocol.
    """

    host: str | None = None
    port: int | None = None
    share: bool = False
    backbone: str = ""
    device: str = "auto"
    indexes: str | None = None
    photos: str | None = None
    runs: str | None = None
    mcp: bool = False


def add_arguments(parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ) -> None:
    """Add the server's options to a parser; each has an environment variable of its name."""
    parser.add_argument("--host", default=environment.get("HOST"), help="address to listen on (0.0.0.0: everybody)")
    parser.add_argument("--port", type=int, default=environment.get("PORT"), help="default: the first free from 7860")
    share, mcp = (environment.get(name, "").lower() in ("1", "true", "yes") for name in ("SHARE", "MCP"))
    parser.add_argument("--share", action="store_true", default=share, help="open a public gradio.live address")
    parser.add_argument("--backbone", default=environment.get("BACKBONE"), help="name, folder or hub id to start with")
    parser.add_argument("--device", default=environment.get("DEVICE", "auto"), help="auto, cpu, cuda or mps")
    parser.add_argument("--indexes", default=environment.get("INDEXES"), help="folder of indexes for all visitors")
    parser.add_argument("--photos", default=environment.get("PHOTOS"), help="folder of photos that visitors may index")
    parser.add_argument("--runs", default=environment.get("RUNS"), help="folder of trainings")
    parser.add_argument("--mcp", action="store_true", default=mcp, help="offer the API to agents too (extra package)")


def from_arguments(args: argparse.Namespace) -> Settings:
    """Turn parsed options into settings; without a backbone, the default that is on this machine."""
    backbone = args.backbone or default_backbone()
    folders = args.indexes, args.photos, args.runs
    return Settings(args.host, args.port, args.share, backbone, args.device, *folders, args.mcp)


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Parse a command line (sys.argv by default) into settings."""
    parser = argparse.ArgumentParser("app.py", description="dinodemo: self-supervised vision features on your pictures")
    add_arguments(parser)
    return from_arguments(parser.parse_args(argv))
