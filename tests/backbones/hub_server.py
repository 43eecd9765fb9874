"""A small imitation of huggingface.co on the loopback interface: what huggingface_hub's client asks, and faults."""

import hashlib
import json
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 1 << 14


@dataclass
class Faults:
    """What goes wrong; the defaults are a healthy hub."""

    info: int = 0  # a status for questions about a repository
    storage: int = 0  # a status for the files' content
    delay: float = 0  # seconds before each answer of the hub
    rate: float = 0  # bytes a second of the storage
    cut: int = 0  # bytes after which the storage breaks each connection off
    hang: int = 0  # bytes after which the storage says no more
    corrupt: bool = False  # the right number of wrong bytes
    wrong_size: bool = False  # another size is announced than comes
    xet: bool = False  # files are in Xet's storage, which cannot be reached
    upload: int = 0  # a status for whatever is uploaded


@dataclass
class Hub:
    """The server's state: repositories, who may do what, what was asked."""

    repos: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)  # (id, revision) -> files
    gated: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=lambda: {"hf_good", "hf_without_access"})
    faults: Faults = field(default_factory=Faults)
    asked: list[str] = field(default_factory=list)
    created: list[dict] = field(default_factory=list)
    uploaded: dict[str, list[str]] = field(default_factory=dict)
    url: str = ""

    def put(self, hub_id: str, files: dict[str, bytes], revision: str = "main") -> None:
        """Add a repository."""
        self.repos[hub_id, revision] = files

    def downloads(self, name: str) -> int:
        """Count how often a file's content was asked for."""
        return sum(line.startswith("GET /storage/") and line.endswith(f"/{name}") for line in self.asked)


@contextmanager
def serve():
    """Run a hub; gives its state."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()  # looks for its end that often
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _commit(hub_id: str, revision: str) -> str:
    return hashlib.sha1(f"{hub_id}@{revision}".encode()).hexdigest()


def _git_sum(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET

    def _route(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.hub.asked.append(f"{self.command} {path}")
        with suppress(BrokenPipeError, ConnectionResetError):
            if path.startswith("/storage/"):
                return self._storage(path)
            time.sleep(self.hub.faults.delay)
            if token and token not in self.hub.tokens:
                return self._error(401, None, "Invalid credentials in Authorization header")
            if self.command in ("POST", "PUT"):
                return self._upload(path)
            if path == "/api/whoami-v2":
                return self._json({"name": "me", "type": "user"}) if token else self._error(401)
            if "/xet-read-token/" in path:
                return self._json({"casUrl": "http://127.0.0.1:9", "exp": int(time.time()) + 3600, "accessToken": "x"})
            for pattern, answer in (
                (r"/api/models/([^/]+/[^/]+)/tree/(.+)", self._tree),
                (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._info),
                (r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", self._resolve),
            ):
                if found := re.fullmatch(pattern, path):
                    return answer(token, *found.groups())
            self._error(404)

    def _find(self, hub_id: str, revision: str | None):
        for (known, rev), files in self.hub.repos.items():
            if known == hub_id and (revision or "main").rstrip("/") in (rev, _commit(hub_id, rev)):
                return files, _commit(hub_id, rev)
        return None, None

    def _missing(self, token: str) -> None:  # the real hub says 401 to strangers
        self._error(404 if token else 401, "RepoNotFound", "Repository not found")

    def _info(self, token: str, hub_id: str, revision: str | None) -> None:
        files, commit = self._find(hub_id, revision)
        if self.hub.faults.info:
            return self._error(self.hub.faults.info)
        if files is None:
            return self._missing(token)
        self._json(
            {
                "_id": "x",
                "id": hub_id,
                "modelId": hub_id,
                "sha": commit,
                "private": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in files],
            }
        )

    def _tree(self, token: str, hub_id: str, revision: str) -> None:
        files, _ = self._find(hub_id, revision)
        if files is None:
            return self._missing(token)
        rows = []
        for name, content in files.items():
            row = {"type": "file", "path": name, "size": len(content), "oid": _git_sum(content)}
            if _is_large(name):
                row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
                if self.hub.faults.xet:
                    row["xetHash"] = hashlib.sha256(content).hexdigest()
            rows.append(row)
        self._json(rows)

    def _resolve(self, token: str, hub_id: str, revision: str, name: str) -> None:
        files, commit = self._find(hub_id, revision)
        if files is None:
            return self._missing(token)
        if hub_id in self.hub.gated and token != "hf_good":
            return self._error(403 if token else 401, "GatedRepo", "Access is restricted")
        if name not in files:
            return self._error(404, "EntryNotFound", "Entry not found")
        content, headers = files[name], {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not _is_large(name):
            return self._send(200, content, {**headers, "ETag": f'"{_git_sum(content)}"'})
        sha = hashlib.sha256(content).hexdigest()
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # the hub's storage is another host, too
        headers |= {
            "X-Linked-Etag": f'"{sha}"',
            "ETag": f'"{sha[:32]}"',
            "Location": f"{elsewhere}/storage/{hub_id}/{commit}/{name}",
            "X-Linked-Size": str(len(content) + 100 * self.hub.faults.wrong_size),
        }
        if self.hub.faults.xet:
            route = f"{self.hub.url}/api/models/{hub_id}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": sha, "Link": f'<{route}>; rel="xet-auth"'}
        self._send(302, b"", headers)

    def _storage(self, path: str) -> None:
        faults = self.hub.faults
        if faults.storage:
            return self._error(faults.storage)
        owner, repo, commit, name = path.removeprefix("/storage/").split("/", 3)
        content = self._find(f"{owner}/{repo}", commit)[0][name]
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        sent = 0
        while self.command == "GET" and start + sent < len(content):
            piece = content[start + sent : start + sent + PIECE]
            self.wfile.write(bytes(len(piece)) if faults.corrupt else piece)
            sent += len(piece)
            if faults.cut and sent >= faults.cut:
                self.close_connection = True
                return self.connection.close()
            if faults.hang and start + sent >= faults.hang:
                time.sleep(60)
            time.sleep(len(piece) / faults.rate if faults.rate else 0)

    def _upload(self, path: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub = self.hub
        if hub.faults.upload:
            return self._error(hub.faults.upload)
        if path == "/api/repos/create":
            order = json.loads(body)
            name = f"{order.get('organization') or 'me'}/{order['name']}"
            hub.created.append({**order, "name": name})
            return self._json({"url": f"{hub.url}/{name}", "name": name, "id": "1"})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.+", path):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.+", path):
            lines = [json.loads(line) for line in body.splitlines()]
            hub.uploaded[found[1]] = [line["value"]["path"] for line in lines if line["key"] == "file"]
            commit = f"{hub.url}/{found[1]}/commit/{'a' * 40}"
            return self._json({"success": True, "commitOid": "a" * 40, "commitUrl": commit, "hookOutput": ""})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        self._error(404)

    def _error(self, status: int, code: str | None = None, message: str = "imitated") -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _json(self, content) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
