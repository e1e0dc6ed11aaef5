"""A real server on 127.0.0.1 that replays the exchanges of tests/data/exchanges: it checks what it is sent and cuts what it sends anywhere.

A file is remarks, then `--- request` (method and path, headers that must be there, an empty line, the JSON that is expected) and one
`--- response` for each try (status, headers, an empty line, the body).
"""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EXCHANGES = Path(__file__).parent / "data" / "exchanges"


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Exchange:
    head: str
    path: str
    headers: Mapping[str, str]
    body: Any
    responses: Sequence[Response]


def read(provider: str, case: str) -> Exchange:
    text = (EXCHANGES / provider / f"{case}.txt").read_text(encoding="utf-8")
    head, _, rest = text.partition("--- request\n")
    request, *responses = rest.split("--- response\n")
    first, headers, body = _parts(request)
    made = [Response(int(status), heads, body.encode()) for status, heads, body in map(_parts, responses)]
    return Exchange(head, first.removeprefix("POST "), headers, json.loads(body), made)


def _parts(text: str) -> tuple[str, dict[str, str], str]:
    head, _, body = text.partition("\n\n")
    first, *lines = head.strip().split("\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def pieces(body: bytes, cut: int) -> list[bytes]:
    """0: in one piece. 1: every byte for itself. Otherwise anywhere, by that seed."""
    if cut == 0:
        return [body]
    if cut == 1:
        return [body[at : at + 1] for at in range(len(body))]
    places = sorted({0, len(body), *random.Random(cut).choices(range(len(body) + 1), k=40)})
    return [body[begin:end] for begin, end in itertools.pairwise(places)]


@dataclass
class Replaying:
    url: str
    seen: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def replaying(responses: Sequence[Response], cut: int = 0, *, unfinished: bool = False) -> Iterator[Replaying]:
    """Answers the first request with the first response, and so on; beyond the last with 500. `unfinished`: the connection breaks."""
    found = Replaying("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
            at = len(found.seen) - 1
            response = responses[at] if at < len(responses) else Response(500, {}, b"one request too many")
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in pieces(response.body, cut):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if not unfinished:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
