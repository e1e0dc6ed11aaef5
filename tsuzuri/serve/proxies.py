"""Who is behind a proxy that is trusted: only then is a header believed, and only what that proxy itself has written.

In: who holds the connection, and the headers. Out: an address, and whether the client's connection was encrypted. `X-Forwarded-For` is read
from its end: what stands further left is what the one before it was told. Without `--trusted-proxy` no header is read at all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

from starlette.datastructures import Headers

from tsuzuri.errors import ConfigError, Words

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Found: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
MOST = 32  # hops that are read


class Proxies:
    def __init__(self, networks: Sequence[str] = ()) -> None:
        """Raises ConfigError for what is no range of addresses."""
        self._networks: list[Network] = []
        for network in networks:
            try:
                self._networks.append(ipaddress.ip_network(network))
            except ValueError as error:
                raise ConfigError(
                    Words(f"--trusted-proxy {network} が指定されました。", f"--trusted-proxy {network} was given."),
                    found=Words("アドレスの範囲ではありません。", "It is no range of addresses."),
                    todo=Words("例：10.0.0.5、192.168.1.0/24", "For example 10.0.0.5 or 192.168.1.0/24."),
                ) from error

    def address(self, peer: str | None, headers: Headers) -> str | None:
        """Of the client: the last that no proxy of ours is. None where that cannot be told: then it is in no range."""
        if not self._trusts(_parsed(peer)):
            return peer
        hops = [hop for line in headers.getlist("x-forwarded-for") for hop in line.split(",")][-MOST:]
        found = None
        for hop in reversed(hops):
            found = _parsed(hop.strip())
            if not self._trusts(found):
                return None if found is None else str(found)
        return peer if found is None else str(found)

    def secure(self, peer: str | None, scheme: str, headers: Headers) -> bool:
        said = headers.getlist("x-forwarded-proto") if self._trusts(_parsed(peer)) else []
        return scheme == "https" or said == ["https"]

    def _trusts(self, address: Found | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _parsed(text: str | None) -> Found | None:
    """An address, perhaps with a port; an IPv4 address written as IPv6 is that IPv4 address."""
    text = text or ""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found
