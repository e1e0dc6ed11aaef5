"""IP アドレス: four numbers up to 255 with dots, or an IPv6 address as RFC 4291 writes it.

In: a text. Out: addresses that name a machine somewhere: not those that everyone has (127.0.0.1, 192.168.…, 10.…, ::1, fe80::…) and no
versions (1.2.3.4 behind 版, v or バージョン). Whether an address is one person's, the text does not tell.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.checks._context import near
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("IPアドレス", "IP address")
PERSONAL = True
NEEDS = (r"[0-9]\.[0-9]{1,3}\.[0-9]", r"[0-9A-Fa-f]:[0-9A-Fa-f]{1,4}:|::")
FOUND = (
    ("接続元は２０３．０．１１３．７です", ("２０３．０．１１３．７",)),
    ("from 198.51.100.23:8080, then 2001:db8::8a2e:370:7334.", ("198.51.100.23", "2001:db8::8a2e:370:7334")),
)
NOT = (
    "IPは192.168.1.10です",
    "版は1.2.3.4に上げました",
    "std::vector",
    "12:30:45に開始",
    "12:30:45:10",
    "203.0.113.256",
    "第1.2.3.4節",
    "127.0.0.1 と ::1",
    "f::a",
)

_FOUR = re.compile(r"(?<![\d.A-Za-z])(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d|[A-Za-z])")
_SIX = re.compile(r"(?<![0-9A-Za-z.])(?<![0-9A-Fa-f]:)(?:[0-9A-Fa-f]{1,4}:{1,2}){2,7}(?:[0-9A-Fa-f]{1,4})?(?![0-9A-Za-z:])")
_VERSION = re.compile(r"版|バージョン|第|version|ver\.?|\bv$|節", re.IGNORECASE)


def find(seen: Normal) -> Iterator[Finding]:
    for pattern in (_FOUR, _SIX):
        for match in pattern.finditer(seen.text):
            if _names_a_machine(match[0]) and not near(_VERSION, seen, match.start(), 8):
                yield found("ip_address", seen, *match.span(), 0.9)


def _names_a_machine(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return False
    documented = address in ipaddress.ip_network("2001:db8::/32" if address.version == 6 else "192.0.2.0/24")
    examples = [ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("203.0.113.0/24")]
    return documented or not address.is_private or (address.version == 4 and any(address in one for one in examples))
