"""The former name of `dinodemo.tasks.compare.match`; scripts that import it go on working."""

from .compare.matches import *  # noqa: F403
from .compare.matches import match, similarity

__all__ = ["match", "similarity"]
