"""Values that no page would send, to every event: a sentence or nothing, never a look into the server."""

import httpx
import numpy as np
import pytest
from patience import SECONDS
from test_isolation import picture
from visitor import Refused, Visitor

NUMBERS = (-1, 0, 1e9, float("nan"), float("inf"), 1.5)
OTHERS = (None, "x" * 5000, [], {"a": {"b": [1]}}, [[None]], True, -1, {"path": "/etc/passwd"})
LEAKS = ("Traceback", "/site-packages", "/dinodemo/web", "/tmp/", "/etc/passwd is", "Errno")


@pytest.fixture
def visitor(server):
    visitor = Visitor(server.url)
    visitor.set("resolution", 224)
    for name in ("attention-photo", "depth-photo", "compare-first", "compare-second", "retrieval-photo"):
        visitor.set(name, visitor.upload("a.png", picture(5)))
        if name != "compare-first":
            visitor.fire(name, "upload")
    return visitor


def outcome(visitor: Visitor, event: dict, data: list) -> str:
    """Send one event; returns the message that came back, empty if it was taken."""
    answer = visitor.join(event, data)
    if answer.status_code != 200:
        return answer.text
    try:
        visitor.receive(event, answer.json()["event_id"])
    except Refused as told:
        return str(told)
    return ""


def attempts(visitor: Visitor, kinds: tuple[str, ...], values: tuple, each: int):
    """Yield (event, data): one component of each kind at a time has an odd value; seeded."""
    rng, seen = np.random.default_rng(0), set()
    for event in visitor.events():
        for place, component in enumerate(event["inputs"]):
            if visitor.kind(component) not in kinds or component in seen:
                continue
            seen.add(component)
            for i in rng.permutation(len(values))[:each]:
                data = [visitor.values[i] for i in event["inputs"]]
                data[place] = values[i]
                yield event, data


@pytest.mark.parametrize(
    ("kinds", "values"),
    [
        (("slider", "number"), NUMBERS),
        (("html", "dataframe", "image", "file", "gallery"), OTHERS),
        (("dropdown", "radio", "textbox", "checkboxgroup", "checkbox"), OTHERS),
    ],
    ids=["numbers", "structures", "choices"],
)
def test_odd_values_get_a_sentence_and_the_server_goes_on(server, visitor, kinds, values):
    before = dict(visitor.values)
    tried = 0
    for event, data in attempts(visitor, kinds, values, each=2):
        message = outcome(visitor, event, data)
        tried += 1
        assert not [leak for leak in LEAKS if leak in message], (event["api_name"], data, message)
        assert values is OTHERS or "Something went wrong" not in message, (event["api_name"], data, message)
        visitor.values = dict(before)
    assert tried >= 20
    assert server.http.get("/healthz").json()["status"] == "ok"


NO_EVENT = b'{"data": [], "fn_index": %d, "session_hash": "a"}'
BODIES = [b"", b"{", b"[]", b"null", b'{"data": 1}', NO_EVENT % 99999, NO_EVENT % -1]


@pytest.mark.parametrize("body", BODIES)
def test_requests_that_are_none_are_refused(server, body):
    for path in ("/gradio_api/queue/join", "/gradio_api/call/on_photo", "/gradio_api/run/predict"):
        headers = {"content-type": "application/json", "connection": "close"}
        answer = httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=SECONDS)
        assert answer.status_code >= 400 or "event_id" in answer.json()  # an event that will refuse
        assert "Traceback" not in answer.text


def test_an_upload_that_is_too_large_is_refused(server):
    answer = httpx.post(
        f"{server.url}/gradio_api/upload", timeout=SECONDS, files={"files": ("a.png", bytes(101 * 1024 * 1024))}
    )
    assert answer.status_code == 413 and "maximum" in answer.text
