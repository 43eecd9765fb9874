"""What a server tells those who look after it: /healthz, and /metrics where prometheus_client is installed."""

import importlib.util
import logging
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .. import __version__
from ..engine.pool import EnginePool
from ..engine.request_log import log, public_name


def health_routes(pool: EnginePool) -> list[Route]:
    """Return the routes; both answer without a login and tell nothing of any person."""
    started = time.monotonic()

    def healthz(_: Request) -> JSONResponse:
        loaded = sorted({public_name(name) for name in pool.loaded()})
        return JSONResponse(
            {"status": "ok", "version": __version__, "backbones": loaded, "uptime_s": round(time.monotonic() - started)}
        )

    routes = [Route("/healthz", healthz)]
    if importlib.util.find_spec("prometheus_client"):
        routes.append(Route("/metrics", _metrics()))
    return routes


def _metrics():
    """Count what the request log tells; returns the endpoint."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

    registry = CollectorRegistry()
    seconds = Histogram("dinodemo_request_seconds", "Time of a request", ["tab", "outcome"], registry=registry)
    pictures = Counter("dinodemo_pictures", "Pictures asked of the network", ["backbone", "how"], registry=registry)

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            facts = vars(record)["facts"]  # the log's `extra`
            seconds.labels(facts["tab"], facts["outcome"]).observe(facts["ms"] / 1000)
            for how in ("computed", "cached"):
                if facts[how]:
                    pictures.labels(facts["backbone"], how).inc(facts[how])

    log.addHandler(Counting())
    return lambda _: Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
