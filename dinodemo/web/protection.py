"""What stands before Gradio for every request: who may ask, what may be asked, and how much may be sent.

Browsers carry a visitor's cookies and reach a visitor's own machine for any page that asks them to. So a request that
changes something must come from this server's own page, and a server for one machine answers under that machine's
names only (against DNS rebinding). Programs send no Origin and are let through, with a login where one is asked for.
"""

import contextlib
import ipaddress
import logging
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import DISK

log = logging.getLogger(__name__)
MOST_JSON = 24_000_000  # bytes of a request: three masks as the painter sends them at most
MOST_UPLOAD = 1_000_000_000  # bytes of one upload with all its files; each file has Gradio's limit besides
UPLOADS = ("/gradio_api/upload", "/upload")
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ELSEWHERE = re.compile(r"/(file[=/]\s*[a-z][a-z0-9+.-]*:|proxy=)", re.IGNORECASE)
# of Gradio, and not used by this app
_SHUT = re.compile(
    r"/(gradio_api/)?(runs|run-history|component_server|process_recording|(undo-)?vibe-\w+|vibe-\w+(-\w+)?|profiling"
    r"|monitoring|dev|custom_component|deep_link)(/|$)"
)
# what a browser needs to show the form of a login, and what looks after the server
_OPEN = re.compile(
    r"/(|login/?|logout|assets/.*|static/.*|svelte/.*|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon.*"
    r"|config/?|healthz|metrics|gradio_api/(startup-events|theme\.css|login_check/?|user/?|token/?|app_id/?))"
)
WRONG_TRIES = 5  # logins that fail before the next has to wait
LONGEST_WAIT = 60.0  # seconds
MOST_ADDRESSES = 10_000  # that are remembered for failed logins
CONTENT_SECURITY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob: mediastream:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors {frames}"
)
OWN_FRAMES = "'self' http://localhost:* http://127.0.0.1:* vscode-webview:"  # notebooks and editors show the page
SPACE_FRAMES = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"


@dataclass(frozen=True)
class Rules:
    """What a server asks of requests.

    Attributes:
        hosts: Names under which it answers; None for any. Addresses of this machine itself always count as its names.
        same_origin: Whether what changes something must come from the server's own page.
        login: Whether all but the login form needs one.
        space: Whether it runs as a Hugging Face Space, in a frame of another site.
    """

    hosts: frozenset[str] | None = None
    same_origin: bool = True
    login: bool = False
    space: bool = False


def rules_for(local: bool, public: bool, login: bool, trusted: Iterable[str] = ()) -> Rules:
    """Return the rules of a server.

    Args:
        local: Whether only this machine can reach it.
        public: Whether strangers use it. Without a login it trusts nobody's browser, so other sites may embed it.
        login: Whether it asks for a login.
        trusted: Names under which a proxy serves it; "*" is any.
    """
    names = frozenset(name.lower() for name in trusted)
    hosts = names | {"localhost"} if local and "*" not in names else None
    return Rules(hosts, login or not public, login, bool(os.environ.get("SPACE_ID")))


class Protection:
    """ASGI middleware that refuses what the rules forbid and adds the headers that browsers heed."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self._app, self._rules, self._tries = app, rules, _Tries()
        frames = SPACE_FRAMES if rules.space else OWN_FRAMES
        self._policy = CONTENT_SECURITY.format(frames=frames)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a refusal, or let the app answer."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        own = is_own_page(headers)
        refusal = self._refusal(scope, headers, own)
        if refusal is not None:
            return await refusal(scope, receive, self._dressed(send, own))
        body = _Body(receive, _most_bytes(scope["path"]))
        login = scope["path"].rstrip("/") == "/login" and scope["method"] == "POST"
        answer = self._dressed(send, own, _address(scope) if login else None)
        begun = False

        async def unless_too_much(message: Message) -> None:
            nonlocal begun
            begun = begun or not body.too_much
            if not body.too_much:
                await answer(message)

        try:
            with contextlib.suppress(_TooMuch):
                await self._app(scope, body.receive, unless_too_much)
        except OSError as error:  # an upload is written to the disk as it comes
            if begun or error.errno not in DISK:
                raise
            log.error("%s", DISK[error.errno])
            return await JSONResponse({"detail": DISK[error.errno]}, 507)(scope, receive, answer)
        if body.too_much:  # whatever the app made of that
            await _too_much(body.most)(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers, own: bool) -> PlainTextResponse | JSONResponse | None:
        path, rules = scope["path"], self._rules
        if _ELSEWHERE.search(path):
            return PlainTextResponse("this server fetches nothing from other hosts; upload the file", 403)
        if _SHUT.match(path):
            return PlainTextResponse("this server does not offer that", 404)
        if rules.hosts is not None and not is_trusted(headers.get("host", ""), rules.hosts):
            return PlainTextResponse(
                "this server answers under its own machine's names only; TRUSTED_HOSTS adds the one that a proxy uses",
                403,
            )
        if rules.same_origin and scope["method"] in CHANGES and not own:
            return PlainTextResponse("this request comes from a page of another site; open the app itself", 403)
        if not _length_is_fine(headers, _most_bytes(path)):
            return _too_much(_most_bytes(path))
        if rules.login and not _OPEN.fullmatch(path) and not is_logged_in(scope, headers):
            return JSONResponse({"detail": "Not authenticated"}, 401)
        if path.rstrip("/") == "/login" and scope["method"] == "POST" and (wait := self._tries.wait(_address(scope))):
            message = {"detail": f"too many wrong passwords; wait {wait:.0f} s and try again"}
            return JSONResponse(message, 429, {"retry-after": f"{wait:.0f}"})
        return None

    def _dressed(self, send: Send, own: bool, tries_from: str | None = None) -> Send:
        """Return what sends an answer on with more headers; tries_from: the address whose login it answers."""

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=[*message.get("headers", ())])
                self._add_headers(headers, own)
                message = {**message, "headers": headers.raw}
                if tries_from is not None:
                    self._tries.note(tries_from, message["status"] < 400)
            await send(message)

        return send_on

    def _add_headers(self, headers: MutableHeaders, own: bool) -> None:
        headers["x-content-type-options"] = "nosniff"
        headers["referrer-policy"] = "same-origin"
        headers["content-security-policy"] = self._policy
        if self._rules.same_origin and not own:  # Gradio lets every site read, with the visitor's cookies
            for name in ("access-control-allow-origin", "access-control-allow-credentials"):
                del headers[name]
        if not self._rules.space:
            cookies = headers.getlist("set-cookie")
            del headers["set-cookie"]
            for cookie in cookies:
                headers.append("set-cookie", re.sub(r"(?i)samesite=none", "SameSite=lax", cookie))


def is_own_page(headers: Headers) -> bool:
    """Return whether a request comes from a page of this server, or from no page at all.

    Browsers say so in Sec-Fetch-Site, whatever a proxy makes of the host; where they do not, Origin has to name the
    host that was asked.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    if origin is None:
        return True
    asked = {headers.get("host", "").lower(), headers.get("x-forwarded-host", "").lower()} - {""}
    try:
        return urlsplit(origin).netloc.lower() in asked
    except ValueError:
        return False


def is_trusted(host: str, names: frozenset[str]) -> bool:
    """Return whether a Host header names this machine, or is one of the names; ports do not matter."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in names or name.endswith(".localhost")


def is_logged_in(scope: Scope, headers: Headers) -> bool:
    """Return whether a request carries the cookie of a login."""
    app = scope.get("app")
    tokens, cookie_id = getattr(app, "tokens", {}), getattr(app, "cookie_id", "")
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return False
    names = (f"access-token-{cookie_id}", f"access-token-unsecure-{cookie_id}")
    return any(name in cookies and cookies[name].value in tokens for name in names)


def _address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _most_bytes(path: str) -> int:
    return MOST_UPLOAD if path.rstrip("/") in UPLOADS else MOST_JSON


def _length_is_fine(headers: Headers, most: int) -> bool:
    length = headers.get("content-length", "0")
    return length.isdecimal() and len(length) < 20 and int(length) <= most


def _too_much(most: int) -> JSONResponse:
    return JSONResponse(
        {"detail": f"a request holds at most {most // 1_000_000} MB; upload files instead of sending their content"},
        413,
    )


class _TooMuch(Exception):
    """Raised when a request body is larger than allowed."""


class _Body:
    """A request's body, counted while it comes: not every request tells its length."""

    def __init__(self, receive: Receive, most: int):
        self._receive, self._count, self.most, self.too_much = receive, 0, most, False

    async def receive(self) -> Message:
        """Return the next part; raises _TooMuch."""
        message = await self._receive()
        self._count += len(message.get("body", b""))
        if self._count > self.most:
            self.too_much = True
            raise _TooMuch
        return message


@dataclass
class _Tries:
    """Failed logins by address: each after the first few waits twice as long as the one before."""

    _failed: dict[str, tuple[int, float]] = field(default_factory=dict)

    def wait(self, address: str) -> float:
        """Return the seconds until an address may try again, 0 for now."""
        count, last = self._failed.get(address, (0, 0.0))
        if count < WRONG_TRIES:
            return 0.0
        pause = min(LONGEST_WAIT, 2.0 ** (count - WRONG_TRIES + 1))
        return max(0.0, last + pause - time.monotonic())

    def note(self, address: str, success: bool) -> None:
        """Note the outcome of a login."""
        count, _ = self._failed.pop(address, (0, 0.0))
        if not success:
            if len(self._failed) >= MOST_ADDRESSES:
                self._failed.pop(next(iter(self._failed)))
            self._failed[address] = (count + 1, time.monotonic())
