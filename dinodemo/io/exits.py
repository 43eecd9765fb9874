"""Exit statuses of the commands, the same for all that work on photos."""

LEFT_OUT = 3  # all went well but for photos that were left out
EXIT_HELP = f"exit status: 0 all done, {LEFT_OUT} some photos left out (each is named with its reason), 1 nothing done"


def exit_status(done: int, left_out: int) -> int:
    """Return the exit status that every command over photos has.

    Args:
        done: Photos that went well, or that had their results already.
        left_out: Photos that were left out.
    """
    if not left_out:
        return 0
    return LEFT_OUT if done else 1
