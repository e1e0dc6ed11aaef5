"""What a kept connection saves an answer of a model elsewhere: our own server over real HTTP, a connection for each request against one kept.

In: nothing. Out: `results/connections.json` and a line a way: milliseconds from asking to the end of an answer of two tokens by a scripted
model, plain and with TLS, everything on one machine. Over a real network each round trip of a handshake comes on top, and none is saved that
this shows as saved already. That both give the same events is checked first.

    python benchmarks/connections.py              half a minute
    python benchmarks/connections.py --rounds 1   a trial
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import tempfile
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import _protocol
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tsuzuri.chat.providers import _connections, openai_compatible
from tsuzuri.engine.sampling import Sampling
from tsuzuri.serve.app import Service
from tsuzuri.serve.models import Pool, Served
from tsuzuri.serve.server import Address, Server, listen
from tsuzuri.store import database, keys
from tsuzuri.types import Done, Event, Message, Options, Text, Usage

TIMES = 100  # answers of a sample
ANSWER: tuple[Event, ...] = (Text("はい"), Text("どうぞ"), Usage(3, 2), Done("stop"))
OPTIONS = Options(Sampling())


def certificate(place: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1 for an hour, signed by itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    kind = serialization.PrivateFormat.PKCS8
    (place / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    (place / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return place / "cert.pem", place / "key.pem"


def serving(place: Path, db: database.Database, tls: bool) -> tuple[str, Server, threading.Thread]:
    cert, key = certificate(place) if tls else (None, None)
    address = Address(port=0, certificate=cert, private_key=key)

    async def chat(messages: Any, options: Options) -> Any:
        for event in ANSWER:
            yield event

    at = listen(address)
    server = Server(Service(Pool([Served("far", chat)]), db), address, 0.2)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
    thread.start()
    port = at.getsockname()[1]
    while not server.started:
        time.sleep(0.01)
    socket.create_connection(("127.0.0.1", port)).close()
    if tls:
        _connections._trusted = lambda: ssl.create_default_context(cafile=cert)  # type: ignore[assignment]
    return f"http{'s' if tls else ''}://127.0.0.1:{port}/v1", server, thread


async def milliseconds(chat: Any, held: bool) -> float:
    """Of one answer, after a first one."""
    async with chat if held else nullcontext():
        await heard(chat)
        begun = time.perf_counter()
        for _ in range(TIMES):
            await heard(chat)
        return 1000 * (time.perf_counter() - begun) / TIMES


def sample(chat: Any, held: bool) -> float:
    return asyncio.run(milliseconds(chat, held))


async def heard(chat: Any) -> list[Event]:
    return [event async for event in chat([Message("user", "あ")], OPTIONS)]


async def same(chat: Any) -> None:
    own = await heard(chat)
    async with chat:
        assert await heard(chat) == own == await heard(chat)


def main() -> None:
    options = _protocol.arguments(__doc__ or "").parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with database.open(place / "data", place / "secrets") as db:
            secret = keys.create(db, "bench", scopes=("chat",), concurrent=64)[1]
            for name, tls in (("plain", False), ("TLS", True)):
                url, server, thread = serving(place, db, tls)
                chat = openai_compatible.chat(url, "far", secret)
                asyncio.run(same(chat))
                ways = [partial(sample, chat, held) for held in (False, True)]
                own, kept = _protocol.rounds(ways[0], ways[1], options.rounds)
                found[name] = {"own": own, "kept": kept, "ratio": _protocol.ratio(own, kept)}
                server.should_exit = True
                thread.join(10)
    _protocol.write("connections", {"rounds": options.rounds, "times": TIMES, "milliseconds": found}, options.out)
    for name, row in found.items():
        print(
            f"{name}: own {sorted(row['own'])[len(row['own']) // 2]:.2f} ms, kept {sorted(row['kept'])[len(row['kept']) // 2]:.2f} ms; own / kept {_protocol.said(row['ratio'])}"
        )


if __name__ == "__main__":
    main()
