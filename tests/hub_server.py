"""A hub on 127.0.0.1 that speaks the protocol of the real one: repositories, commits, and a second server for large files.

    hub.add("owner/name", {"config.json": b"{}", …})     a new commit; `main` points to it
    hub.fault("model.safetensors", Close(after=1000))    what happens to the next requests for that file, one each
    hub.requests                                          what was asked: (server, path, headers)

As on the real one, small files come by way of a relative redirect (307) with git's hash as their ETag, and large files (LFS)
by way of a 302 to another host with X-Linked-Etag and X-Linked-Size. `tests/hub/test_server.py` asks the official client.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

LFS = (".safetensors", ".bin", ".gguf", ".pt")  # what .gitattributes of every repository names
BLOCK = 1 << 14


@dataclass(frozen=True)
class Close:
    """The connection breaks off after so many bytes of the body."""

    after: int


@dataclass(frozen=True)
class Status:
    """The request is refused."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Body:
    """Other bytes than those of the file, as if they were."""

    data: bytes
    chunked: bool = False  # then nobody says beforehand how long it is


@dataclass(frozen=True)
class Whole:
    """The range that was asked for is ignored: all of it, with 200."""


@dataclass(frozen=True)
class Range:
    """206 with a range nobody asked for."""

    start: int


@dataclass(frozen=True)
class Extra:
    """Headers are replaced: of the hub's own answer, or of the last one."""

    headers: tuple[tuple[str, str], ...]
    last: bool = False


@dataclass(frozen=True)
class Stall:
    """After so many bytes of the body nothing comes until `hub.go` is set."""

    after: int


@dataclass(frozen=True)
class To:
    """A redirect to somewhere else."""

    location: str


Fault = Close | Status | Body | Whole | Range | Extra | Stall | To


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Hub:
    address: str = ""  # of the hub
    elsewhere: str = ""  # of the host that holds large files
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # "owner/name@commit" -> files
    revisions: dict[str, str] = field(default_factory=dict)  # "owner/name@revision" -> commit
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    listing: bytes | None = None  # in place of the true answer
    token: str | None = None  # without it nothing is shown
    go: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, files: dict[str, bytes], revision: str = "main") -> str:
        text = json.dumps({path: sha256(data) for path, data in files.items()}, sort_keys=True)
        commit = hashlib.sha1(f"{name} {len(self.commits)} {text}".encode()).hexdigest()
        self.commits[f"{name}@{commit}"] = dict(files)
        self.revisions[f"{name}@{revision}"] = self.revisions[f"{name}@{commit}"] = commit
        return commit

    def fault(self, file: str, *faults: Fault) -> None:
        """For the bytes of a file, wherever they come from, or for `listing`."""
        self.faults.setdefault(file, []).extend(faults)

    def next_fault(self, file: str, *kinds: type) -> Fault | None:
        waiting = self.faults.get(file, [])
        return waiting.pop(0) if waiting and isinstance(waiting[0], kinds) else None

    def asked(self, part: str) -> list[tuple[str, str, dict[str, str]]]:
        return [request for request in self.requests if part in request[1]]

    def siblings(self, name: str, commit: str) -> list[dict[str, object]]:
        found = []
        for path, data in self.commits[f"{name}@{commit}"].items():
            entry: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": blob(data)}
            if path.endswith(LFS):
                entry["blobId"] = blob(pointer(data))
                entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": len(pointer(data))}
            found.append(entry)
        return found


def pointer(data: bytes) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(data)}\nsize {len(data)}\n".encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    role: str

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append((self.role, self.path, {name.lower(): value for name, value in self.headers.items()}))
        path = unquote(urlsplit(self.path).path)
        try:
            if self.role == "elsewhere":
                self.large(path)
            elif self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
                self.refuse(401, "RepoNotFound")
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                self.info(match[1], match[2] or "main")
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
                self.tree(match[1], match[2])
            elif match := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
                self.small(match[1], match[2], match[3])
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.resolve(match[1], match[2], match[3])
            else:
                self.refuse(404, "")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # ── the hub

    def commit(self, name: str, revision: str) -> str | None:
        found = self.hub.revisions.get(f"{name}@{revision}")
        if found is None:
            known = any(key.startswith(f"{name}@") for key in self.hub.revisions)
            self.refuse(404, "RevisionNotFound") if known else self.refuse(401, "RepoNotFound")
        return found

    def info(self, name: str, revision: str) -> None:
        if isinstance(fault := self.hub.next_fault("listing", Status, To), Status):
            return self.refuse(fault.status, "", dict(fault.headers))
        if isinstance(fault, To):
            return self.answer(307, b"", {"Location": fault.location})
        commit = self.commit(name, revision)
        if commit is None:
            return None
        siblings = self.hub.siblings(name, commit)
        if "blobs" not in parse_qs(urlsplit(self.path).query):
            siblings = [{"rfilename": entry["rfilename"]} for entry in siblings]
        config = json.loads(self.hub.commits[f"{name}@{commit}"].get("config.json", b"{}"))
        found = {"id": name, "modelId": name, "sha": commit, "private": False, "siblings": siblings, "tags": [], "downloads": 0}
        found["config"] = {"model_type": config["model_type"]} if "model_type" in config else None
        return self.answer(200, self.hub.listing or json.dumps(found).encode(), {"Content-Type": "application/json"})

    def tree(self, name: str, revision: str) -> None:
        commit = self.commit(name, revision)
        if commit is not None:
            found: list[dict[str, object]] = []
            for entry in self.hub.siblings(name, commit):
                row = {"type": "file", "path": entry["rfilename"], "size": entry["size"], "oid": entry["blobId"]}
                if isinstance(lfs := entry.get("lfs"), dict):
                    row["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
                found.append(row)
            self.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, revision: str, path: str) -> None:
        commit = self.commit(name, revision)
        if commit is None:
            return None
        data = self.hub.commits[f"{name}@{commit}"].get(path)
        if data is None:
            return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        large = path.endswith(LFS)
        if large:
            headers |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data)), "ETag": f'"{sha256(data)}"'}
        waiting = self.hub.faults.get(path, [])
        fault = None if waiting and isinstance(waiting[0], Extra) and waiting[0].last else self.hub.next_fault(path, Extra, To)
        if isinstance(fault, Extra):
            headers |= dict(fault.headers)
        if isinstance(fault, To):
            headers["Location"] = fault.location
        elif large:
            headers["Location"] = f"{self.hub.elsewhere}/{sha256(data)}/{quote(path)}?Expires=1&Signature=secret"
        else:
            headers["Location"] = f"/api/resolve-cache/models/{name}/{commit}/{quote(path)}?etag={quote(blob(data))}"
        return self.answer(302 if large else 307, b"moved", headers)

    def small(self, name: str, commit: str, path: str) -> None:
        data = self.hub.commits[f"{name}@{commit}"][path]
        self.file(path, data, {"ETag": f'"{blob(data)}"', "X-Repo-Commit": commit, "Content-Disposition": "inline"})

    # ── where large files are

    def large(self, path: str) -> None:
        digest, _, name = path[1:].partition("/")
        data = next((data for files in self.hub.commits.values() for data in files.values() if sha256(data) == digest), None)
        if data is None:
            return self.refuse(404, "")
        return self.file(name, data, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    # ── both

    def file(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        fault = self.hub.next_fault(path, Close, Status, Body, Whole, Range, Stall, Extra) if self.command == "GET" else None
        if isinstance(fault, Status):
            return self.refuse(fault.status, "", dict(fault.headers))
        if isinstance(fault, Body):
            return self.chunked(fault.data, headers) if fault.chunked else self.answer(200, fault.data, headers)
        if isinstance(fault, Extra):
            headers |= dict(fault.headers)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        headers["Accept-Ranges"] = "bytes"
        if wanted and not isinstance(fault, Whole):
            start = fault.start if isinstance(fault, Range) else int(wanted[1])
            if start >= len(data):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.answer(206, data[start:], headers, fault)
        return self.answer(200, data, headers, fault)

    def answer(self, status: int, data: bytes, headers: dict[str, str], fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(fault, Close):
            data = data[: fault.after]
        for start in range(0, len(data), BLOCK):
            if isinstance(fault, Stall) and start >= fault.after:
                self.hub.go.wait()
            self.wfile.write(data[start : start + BLOCK])
        if isinstance(fault, Close):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def chunked(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.answer(status, b"", {**({"X-Error-Code": code} if code else {}), **(headers or {})})


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no error here."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serving() -> Iterator[Hub]:
    """Both servers, each in a thread, on ports the system chose."""
    hub = Hub()
    servers = []
    for role in ("hub", "elsewhere"):
        handler = type("Handler", (Handler,), {"hub": hub, "role": role})
        server = Server(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    hub.address, hub.elsewhere = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        hub.go.set()
        for server in servers:
            server.shutdown()
            server.server_close()
