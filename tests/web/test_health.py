"""What the server tells those who look after it."""

import json
import logging
import time

import pytest

from dinodemo import __version__
from dinodemo.engine import request_log
from dinodemo.engine.pool import EnginePool
from dinodemo.web.health import health_routes


def test_healthz_answers_and_names_no_folder(server):
    deadline = time.monotonic() + 300
    while not (told := server.http.get("/healthz").json())["backbones"] and time.monotonic() < deadline:
        time.sleep(0.2)  # the backbone loads in the background
    assert told["status"] == "ok" and told["version"] == __version__ and told["uptime_s"] >= 0
    assert told["backbones"] == ["other"]  # a folder of the server
    assert server.http.get("/").status_code == 200  # the page itself is still there


def test_the_log_is_json_lines(server):
    server.http.get("/healthz")
    ours = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert all("logger" in json.loads(line) for line in ours)


def test_metrics_count_requests(caplog):
    pytest.importorskip("prometheus_client", reason="an extra: pip install dinodemo[metrics]")
    caplog.set_level(logging.INFO, "dinodemo.requests")
    before = list(request_log.log.handlers)
    (metrics,) = [route for route in health_routes(EnginePool()) if route.path == "/metrics"]
    try:
        request_log.Entry("depth_tab", "on_photo").end("refused")
        text = metrics.endpoint(None).body.decode()
    finally:
        request_log.log.handlers[:] = before
    assert 'dinodemo_request_seconds_count{outcome="refused",tab="depth_tab"} 1.0' in text
