"""Attention: where the class token, or a clicked patch, looks."""

from ..base import Task, lazy

TASK = Task("attention", "Attention")
__getattr__ = lazy(
    __name__,
    dict.fromkeys(
        [
            "AttentionSinks",
            "attention_map",
            "combine_heads",
            "keep_mass",
            "cosine_to_patch",
            "prefix_mass",
            "attention_sinks",
        ],
        "maps",
    ),
)
