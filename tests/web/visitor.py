"""A visitor without a browser: asks the server over HTTP exactly as the page's script does."""

import json
import secrets
from typing import Any

import httpx
from patience import SECONDS

from dinodemo.web.owner import new_owner


class Refused(Exception):
    """Hold the message that the page would show; None when it would show only that something failed."""


class Visitor:
    """Hold one page's session: its values of the components, its key, and what the last events returned."""

    def __init__(self, url: str, http: httpx.Client | None = None):
        self.http = http or httpx.Client(base_url=url, timeout=SECONDS)
        self.session, self.key = secrets.token_hex(6), new_owner()
        config = self.http.get("/config").raise_for_status().json()
        self._components = {component["id"]: component for component in config["components"]}
        self._events = config["dependencies"]
        self.values = {i: c["props"].get("value") for i, c in self._components.items()}
        self.values[self._id("browser-key")] = self.key

    def upload(self, name: str, content: bytes) -> dict:
        """Send a file; returns what a component's value says of it."""
        answer = self.http.post("/gradio_api/upload", files={"files": (name, content)}).raise_for_status()
        return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def set(self, elem_id: str, value: Any) -> None:
        """Set a component's value, without its events."""
        self.values[self._id(elem_id)] = value

    def get(self, elem_id: str) -> Any:
        """Return a component's value."""
        return self.values[self._id(elem_id)]

    def fire(self, elem_id: str, event: str, data: Any = None) -> None:
        """Trigger a component's event and those that follow its success; raises Refused with the page's message."""
        target = [self._id(elem_id), event]
        for found in [e for e in self._events if e["backend_fn"] and target in e["targets"]]:
            self._run(found, data)

    def load(self) -> None:
        """Trigger what happens when the page is opened."""
        for event in self.events():
            if any(name == "load" for _, name in event["targets"]):
                self._run(event)

    def events(self) -> list[dict]:
        """Return the descriptions of all events that the server answers."""
        return [event for event in self._events if event["backend_fn"]]

    def kind(self, component: int) -> str:
        """Return a component's kind, such as "slider"."""
        return self._components[component]["type"]

    def event(self, elem_id: str, event: str) -> dict:
        """Return the description of the first event of a component."""
        return next(e for e in self._events if e["backend_fn"] and [self._id(elem_id), event] in e["targets"])

    def join(self, event: dict, data: list | None = None, event_data: Any = None) -> httpx.Response:
        """Put an event into the queue, with the present values unless others are given."""
        data = [self.values[i] for i in event["inputs"]] if data is None else data
        body = {
            "data": data,
            "fn_index": event["id"],
            "event_data": event_data,
            "session_hash": self.session,
            "trigger_id": None,
        }
        content = json.dumps(body)  # not by httpx: it refuses NaN, which a stranger's script does not
        return self.http.post("/gradio_api/queue/join", content=content, headers={"content-type": "application/json"})

    def _run(self, event: dict, data: Any = None) -> None:
        self.receive(event, self.join(event, event_data=data).raise_for_status().json()["event_id"])
        for following in self._events:
            after = following["trigger_after"] == event["id"] and not following["trigger_only_on_failure"]
            if after and following["backend_fn"]:
                self._run(following)

    def receive(self, event: dict, event_id: str) -> None:
        """Wait for an event's end and keep what it returned; raises Refused."""
        address = f"/gradio_api/queue/data?session_hash={self.session}"
        before: list = []
        with self.http.stream("GET", address) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if message.get("event_id") != event_id or "output" not in message:
                    continue
                output = message["output"]
                if message["msg"] == "process_completed" and not message["success"]:
                    raise Refused(output.get("error"))
                before = self._keep(event, output.get("data") or before, before)
                if message["msg"] == "process_completed":
                    return
        raise ConnectionError("the stream of results ended before the result")

    def _keep(self, event: dict, data: list, before: list) -> list:
        """Store what an event returned; a generator's later steps come as differences to the step before."""
        if before and data and all(isinstance(d, list) for d in data):
            data = [_patched(old, changes) for old, changes in zip(before, data, strict=True)]
        for i, value in zip(event["outputs"], data, strict=False):
            if isinstance(value, dict) and value.get("__type__") == "update":
                value = value.get("value", self.values.get(i))
            self.values[i] = value
        return data

    def _id(self, elem_id: str) -> int:
        return next(i for i, c in self._components.items() if c["props"].get("elem_id") == elem_id)


def _patched(old: Any, changes: list) -> Any:
    for action, path, value in changes:
        if not path:
            old = value
            continue
        target = old = json.loads(json.dumps(old))
        for step in path[:-1]:
            target = target[step]
        if action == "delete":
            del target[path[-1]]
        elif action == "append":
            target[path[-1]] += value
        else:
            target[path[-1]] = value
    return old
