"""Fine-tune: a backbone is trained further on a folder of photos, in a process of its own."""

from ..base import Task

TASK = Task("finetune", "Fine-tune", rooms=("tab", "cli"), comparable=False)
