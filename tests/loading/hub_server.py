"""A model hub on loopback: the few routes that the hub's client asks for, over folders, with faults on request."""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMITS = {"main": "a" * 40, "older": "b" * 40}


class Hub(ThreadingHTTPServer):
    """`<root>/<models or datasets>/<owner>/<name>` are its repositories.

    Attributes:
        gated: repositories whose files need a permission.
        broken: files whose first download breaks off in the middle.
        asked: what was asked for: method, path and the range of bytes.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.gated, self.broken = root, set[str](), set[str]()
        self.asked: list[tuple[str, str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(body=True, posted=content)

    def _answer(self, body: bool, posted: bytes = b"") -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path, self.headers.get("Range") or ""))
        api = re.fullmatch(r"/api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/(.*))?", path)
        file = re.fullmatch(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path)
        if file:
            return self._file("datasets" if file[1] else "models", file[2], file[3], file[4], body)
        if not api:
            return self._error(404, "EntryNotFound")
        kind, repo, rest = api[1], api[2], api[3] or ""
        folder = self.server.root / kind / repo
        if not folder.is_dir():
            return self._error(404, "RepoNotFound")
        what, _, revision = rest.partition("/")
        if what == "auth-check":
            return self._error(403, "GatedRepo") if repo in self.server.gated else self._json({})
        revision, _, below = (revision or "main").partition("/")
        if revision not in (*COMMITS, *COMMITS.values()):
            return self._error(404, "RevisionNotFound")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        listed = [
            {
                "type": "file",
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
                "oid": _digest(path),
            }
            for path in files
            if path.relative_to(folder).as_posix().startswith(below)
        ]
        if what == "tree":
            return self._json(listed)
        if what == "paths-info":
            wanted = (
                json.loads(posted)["paths"] if posted[:1] == b"{" else re.findall(r"paths=([^&]*)", posted.decode())
            )
            return self._json([entry for entry in listed if entry["path"] in wanted])
        if what not in ("", "revision"):
            return self._error(404, "EntryNotFound")
        siblings = [{"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]} for entry in listed]
        commit = COMMITS.get(revision, revision)
        self._json(
            {
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "private": False,
            }
            | {"gated": "manual" if repo in self.server.gated else False, "lastModified": "2026-01-01T00:00:00.000Z"}
        )

    def _file(self, kind: str, repo: str, revision: str, name: str, body: bool) -> None:
        path = self.server.root / kind / repo / name
        if not path.parent.is_relative_to(self.server.root) or not (self.server.root / kind / repo).is_dir():
            return self._error(404, "RepoNotFound")
        if repo in self.server.gated:
            return self._error(403, "GatedRepo")
        if revision not in (*COMMITS, *COMMITS.values()):
            return self._error(404, "RevisionNotFound")
        if not path.is_file():
            return self._error(404, "EntryNotFound")
        content = path.read_bytes()
        start, end = 0, len(content)
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(match[1]), int(match[2] or len(content) - 1) + 1
        part = content[start:end]
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("ETag", f'"{_digest(path)}"')
        self.send_header("X-Repo-Commit", COMMITS.get(revision, revision))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if not body:
            return
        if name in self.server.broken and len(part) > 1000:
            self.server.broken.discard(name)
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(part)

    def _json(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A hub over a folder, for a `with` block."""
    with Hub(root) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
