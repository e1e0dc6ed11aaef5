"""The service on an address: sockets, TLS, and an orderly end.

In: a `Service`, a host and a port. Out: a running server; at the first Ctrl-C it takes no new requests and lets those under way
finish for a while, then ends each with a terminator; at the second it ends them at once. A public address wants TLS or a plain word.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from tsuzuri.errors import ConfigError, Words, why
from tsuzuri.serve import heads
from tsuzuri.serve.app import MAX_HEAD, Service
from tsuzuri.serve.running import SWITCH
from tsuzuri.serve.terms import LOOPBACK

GRACE = 30.0  # seconds for what is under way when the server is told to stop
LAST = 5.0  # seconds for the terminators after that
MOMENT = 1.0  # seconds for the terminators after the second signal
BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Raises ConfigError for a public address without TLS, unless `plain` says that it is meant."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    private_key: Path | None = None
    plain: bool = False
    shared: bool = False  # other servers of the same user may be at the same port: the next version starts before this one ends

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise _wrong(
                self.host,
                Words("証明書と秘密鍵は両方要ります。", "A certificate and its private key are needed together."),
                Words("--tls-cert と --tls-key を指定してください。", "Give --tls-cert and --tls-key."),
            )
        if not (is_loopback(self.host) or self.certificate or self.plain):
            raise _wrong(
                self.host,
                Words("ほかの計算機からも届く場所で、通信が暗号化されません。", "Other machines reach it there, and nothing is encrypted."),
                Words(
                    "--tls-cert と --tls-key を指定するか、暗号化を別の所でしているなら --plain-http を付けてください。",
                    "Give --tls-cert and --tls-key; or --plain-http, if something in front of it encrypts.",
                ),
            )

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"

    def hosts(self, named: tuple[str, ...]) -> tuple[str, ...]:
        """The names in a Host header that mean this server: its own, and those it was given."""
        return (*LOOPBACK, f"[{self.host}]" if ":" in self.host else self.host, *named)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server(uvicorn.Server):
    """uvicorn, with an end in two steps."""

    def __init__(self, service: Service, address: Address, grace: float = GRACE) -> None:
        super().__init__(
            uvicorn.Config(
                service,
                http=heads.Protocol,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who asks is whoever holds the connection
                h11_max_incomplete_event_size=MAX_HEAD,
                timeout_graceful_shutdown=round(grace + LAST),
                ssl_certfile=address.certificate,
                ssl_keyfile=address.private_key,
            )
        )
        self._service, self._grace = service, grace
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)
        if self.force_exit:  # uvicorn does not wait, and tells the service nothing
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks, timeout=MOMENT)
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn would raise the signal again once all is over: here an orderly end is no failure."""
        self._service.draining = True
        if self._loop is not None and not self.should_exit:
            self._loop.call_soon_threadsafe(self._loop.call_later, self._grace, self._service.stopping.set)
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._service.stopping.set)
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(address: Address) -> socket.socket:
    """The socket, so that a port that is taken is told before a model is loaded. Raises ConfigError.

    At a shared port nobody is let in before the server runs: until then there are others."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, for asyncio sends at once (TCP_NODELAY) only then
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind((address.host, address.port))
        if not address.shared:
            found.listen(BACKLOG)
    except (OSError, OverflowError, AttributeError) as error:  # there are systems without SO_REUSEPORT
        found.close()
        raise _wrong(
            f"{address.host}:{address.port}",
            Words(f"使えません（{why(error).ja}）。", f"It cannot be used ({why(error).en})."),
            Words("--port か --host を変えてください。", "Choose another --port or --host."),
        ) from error
    return found


def run(service: Service, address: Address, at: socket.socket, grace: float = GRACE) -> None:
    """Until it is told to stop."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    sys.setswitchinterval(SWITCH)
    Server(service, address, grace).run(sockets=[at])


def _wrong(host: str, found: Words, todo: Words) -> ConfigError:
    return ConfigError(Words(f"{host} でサーバーを始めようとしました。", f"Starting the server at {host}."), found=found, todo=todo)
