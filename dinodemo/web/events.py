"""How the page's events run: who waits for whom, what is shown meanwhile, what the API lists. No Gradio in here."""

from typing import Any

Options = dict[str, Any]  # of an event listener or a component

ENGINE_QUEUE: Options = {"concurrency_id": "engine", "concurrency_limit": 4}  # of every event that runs the network
PRIVATE: Options = {"api_visibility": "private"}
QUIET: Options = {"show_progress": "hidden", **PRIVATE}
LIVE: Options = {**QUIET, "trigger_mode": "always_last"}  # of controls that are moved
PICTURE: Options = {"format": "jpeg", "interactive": False, "buttons": ["fullscreen"]}  # of results


def runs_network(shown_on: Any = None) -> Options:
    """Return the options of an event that runs the network; shown_on: the component that shows its progress."""
    return {**ENGINE_QUEUE, **PRIVATE, **({} if shown_on is None else {"show_progress_on": [shown_on]})}
