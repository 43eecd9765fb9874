"""What stands before Gradio: other sites, foreign names, logins, and how much may be sent."""

import errno
import json
import re

import httpx
import pytest
from patience import SECONDS
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dinodemo.web import protection
from dinodemo.web.protection import Protection, is_own_page, is_trusted, rules_for
from dinodemo.web.settings import parse

JOIN = "/gradio_api/queue/join"


def client(rules, base: str = "http://127.0.0.1:7860") -> TestClient:
    """Make a small app behind the rules, that echoes how much it was sent."""

    async def echo(request):
        answer = PlainTextResponse(str(len(await request.body())))
        answer.headers["access-control-allow-origin"] = request.headers.get("origin", "")
        answer.headers["access-control-allow-credentials"] = "true"
        answer.set_cookie("a", "b", samesite="none", secure=True)
        return answer

    async def login(request):
        return PlainTextResponse("", 200 if b"good" in await request.body() else 400)

    routes = [Route("/login", login, methods=["POST"]), Route("/{path:path}", echo, methods=["GET", "POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(Protection, rules=rules)])
    app.tokens, app.cookie_id = {"token": "anna"}, "id"
    return TestClient(app, base_url=base)


LOCAL = rules_for(local=True, public=False, login=False)
PUBLIC = rules_for(local=False, public=True, login=False)
LAN = rules_for(local=False, public=False, login=False)
LOGIN = rules_for(local=False, public=True, login=True)


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, True),  # a program
        ({"origin": "http://127.0.0.1:7860"}, True),
        ({"origin": "http://127.0.0.1:7861"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://[", "host": "127.0.0.1"}, False),
        ({"origin": "https://demo.example", "x-forwarded-host": "demo.example"}, True),
        ({"origin": "https://demo.example", "sec-fetch-site": "same-origin"}, True),  # a proxy that changes the host
        ({"origin": "http://127.0.0.1:7860", "sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, True),  # typed into the address bar
    ],
)
def test_requests_of_other_sites_are_recognised(headers, own):
    assert is_own_page(Headers({"host": "127.0.0.1:7860"} | headers)) is own


@pytest.mark.parametrize("rules", [LOCAL, LAN, LOGIN], ids=["local", "lan", "login"])
def test_other_sites_change_and_read_nothing(rules):
    asked = client(rules)
    cookie = {"cookie": "access-token-id=token"}
    evil = {"origin": "https://evil.example"} | cookie
    assert asked.post(JOIN, headers=evil).status_code == 403
    assert "access-control-allow-origin" not in asked.get("/config", headers=evil).headers
    own = {"origin": "http://127.0.0.1:7860"} | cookie
    assert asked.post(JOIN, headers=own).status_code == 200
    assert asked.post(JOIN, headers=cookie).status_code == 200  # gradio_client


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EROFS, 507), (errno.EPIPE, 500)])
def test_an_upload_that_the_disk_refuses_is_a_sentence(number, status):
    async def full(request):
        raise OSError(number, "refused", "/secret/path")

    routes = [Route("/{path:path}", full, methods=["POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(Protection, rules=LOCAL)])
    asked = TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
    answer = asked.post("/gradio_api/upload", content=b"x")
    assert answer.status_code == status and "/secret" not in answer.text
    assert ("tell who runs it" in answer.text) is (status == 507)


def test_a_public_server_without_a_login_may_be_embedded():
    answer = client(PUBLIC, "http://demo.example").post(JOIN, headers={"origin": "https://blog.example"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://blog.example"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7860", "127.0.0.1", "127.1.2.3:80", "[::1]:7860", "app.localhost"]
)
def test_a_local_server_answers_under_this_machines_names(host):
    assert client(LOCAL).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.2:7860", "", "[", "localhost@evil"]
)
def test_a_local_server_refuses_other_names(host):
    assert not is_trusted(host, LOCAL.hosts)
    if host:
        assert client(LOCAL).get("/", headers={"host": host}).status_code == 403
        assert client(LAN).get("/", headers={"host": host}).status_code == 200


def test_names_of_a_proxy_can_be_trusted():
    assert is_trusted("demo.example:443", rules_for(True, False, False, ("Demo.example",)).hosts)
    assert rules_for(True, False, False, ("*",)).hosts is None
    assert parse(["--trusted-hosts", "a.example, b.example"]).trusted_hosts == ("a.example", "b.example")


def test_without_a_login_only_the_form_answers():
    asked = client(LOGIN)
    for path in ("config/x", "gradio_api/openapi.json", "gradio_api/info", "gradio_api/cancel", "gradio_api/reset"):
        assert asked.get(f"/{path}").status_code == 401, path
        assert asked.get(f"/{path}", headers={"cookie": "access-token-id=guess"}).status_code == 401
        assert asked.get(f"/{path}", headers={"cookie": "access-token-unsecure-id=token"}).status_code == 200
    for path in ("", "assets/index.js", "healthz", "gradio_api/startup-events", "theme.css"):
        assert asked.get(f"/{path}").status_code == 200, path


@pytest.mark.parametrize(
    "path",
    ["runs", "run-history/records", "component_server", "vibe-edit", "profiling/summary", "monitoring", "dev/reload"],
)
def test_doors_of_gradio_that_are_not_used_stay_shut(path):
    assert client(LOCAL).get(f"/gradio_api/{path}").status_code == 404


def test_a_body_ends_at_its_limit_whether_it_tells_its_length_or_not(monkeypatch):
    monkeypatch.setattr(protection, "MOST_JSON", 1000)
    monkeypatch.setattr(protection, "MOST_UPLOAD", 5000)
    asked = client(LOCAL)

    def parts(count: int):
        yield from (b"x" * 100 for _ in range(count))

    assert asked.post(JOIN, content=b"x" * 1000).text == "1000"
    assert asked.post(JOIN, content=b"x" * 1001).status_code == 413
    assert asked.post(JOIN, content=parts(10)).text == "1000"
    assert asked.post(JOIN, content=parts(11)).status_code == 413
    assert asked.post(JOIN, content=b"", headers={"content-length": "-1"}).status_code == 413
    assert asked.post("/gradio_api/upload", content=b"x" * 4000).text == "4000"
    assert asked.post("/gradio_api/upload", content=parts(51)).status_code == 413


def test_wrong_passwords_wait_longer_and_longer(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(protection.time, "monotonic", lambda: now[0])
    asked = client(LOGIN)
    assert [asked.post("/login", content=b"bad").status_code for _ in range(7)] == [400] * 5 + [429] * 2
    refused = asked.post("/login", content=b"good")
    assert refused.status_code == 429 and "wait 2 s" in refused.json()["detail"]
    now[0] += 2.1
    assert asked.post("/login", content=b"bad").status_code == 400
    now[0] += 2.1
    assert asked.post("/login", content=b"good").status_code == 429  # now it is four
    now[0] += 60
    assert asked.post("/login", content=b"good").status_code == 200
    assert [asked.post("/login", content=b"bad").status_code for _ in range(5)] == [400] * 5


def test_headers_that_browsers_heed(monkeypatch):
    headers = client(LOCAL).get("/").headers
    assert headers["referrer-policy"] == "same-origin" and headers["x-content-type-options"] == "nosniff"
    assert "object-src 'none'" in headers["content-security-policy"]
    assert "SameSite=lax" in headers["set-cookie"]
    monkeypatch.setenv("SPACE_ID", "a/b")
    space = client(rules_for(False, True, True)).get("/").headers
    assert "SameSite=none" in space["set-cookie"] and "huggingface.co" in space["content-security-policy"]


def test_the_real_server_keeps_its_doors(server):
    host, evil = {"host": "evil.example"}, {"origin": "https://evil.example"}
    assert server.http.get("/config", headers=host).status_code == 403
    assert server.http.post(JOIN, json={}, headers=evil).status_code == 403
    assert server.http.post("/gradio_api/upload", files={"files": ("a.txt", b"x")}, headers=evil).status_code == 403
    assert server.http.post(JOIN, content=b" " * 25_000_000).status_code == 413
    before = server.log.stat().st_size
    nested = "[" * 100_000 + "]" * 100_000
    for body in (nested, '{"data": [' + '"x",' * 200_000 + '1], "fn_index": 0, "session_hash": "a"}'):
        server.http.post(JOIN, content=body, headers={"content-type": "application/json"})
    assert server.log.stat().st_size - before < 50_000


def test_forged_paths_leave_json_lines_without_names(server):
    from visitor import Visitor

    page = Visitor(server.url)
    event = page.event("attention-photo", "upload")
    forged = {"path": "/etc/Annas_secret_name.png", "meta": {"_type": "gradio.FileData"}, "orig_name": "Anna.png"}
    data = [forged for _ in event["inputs"]]
    answer = page.join(event, data)
    if answer.status_code == 200:
        with httpx.stream(
            "GET", f"{server.url}/gradio_api/queue/data?session_hash={page.session}", timeout=SECONDS
        ) as lines:
            next(line for line in lines.iter_lines() if "process_completed" in line)
    text = server.log.read_text()
    assert "Annas_secret_name" not in text
    for line in text.splitlines():
        assert line.startswith("* ") or not line.strip() or json.loads(line), line


def test_the_login_of_the_real_server(start_server):
    server = start_server(AUTH="anna:correct horse")
    for path in ("/config", "/gradio_api/openapi.json", "/gradio_api/info"):
        assert server.http.get(path).status_code == 401
    answer = server.http.post("/login", data={"username": "anna", "password": "correct horse"})
    assert answer.status_code == 200
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 2 and not [c for c in cookies if re.search("samesite=none", c, re.IGNORECASE)]
    token = "; ".join(cookie.partition(";")[0] for cookie in cookies)
    assert httpx.get(f"{server.url}/config", headers={"cookie": token}, timeout=SECONDS).status_code == 200
    evil = {"cookie": token, "origin": "https://evil.example"}
    assert httpx.post(f"{server.url}{JOIN}", json={}, headers=evil, timeout=SECONDS).status_code == 403
