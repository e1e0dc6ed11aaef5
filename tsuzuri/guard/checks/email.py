"""メールアドレス: a name, an @ and a domain; (at) and [at] for the @ too.

In: a text. Out: the addresses. Only ASCII ones: an address with Japanese letters before the @ is not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.finding import Finding, found
from tsuzuri.guard.normal import Normal

LABEL = Words("メールアドレス", "e-mail")
PERSONAL = True
NEEDS = (r"@|[(\[]at[)\]]",)
FOUND = (
    ("連絡先はｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏ．ｊｐです", ("ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏ．ｊｐ",)),
    ("<taro.yamada+a@mail.example.com>, hana(at)example.jp.", ("taro.yamada+a@mail.example.com", "hana(at)example.jp")),
)
NOT = ("@example をフォロー", "単価は@500円です", "a@b", "git@ のあとに続ける")

_ADDRESS = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}(?:@|\(at\)|\[at\])"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)


def find(seen: Normal) -> Iterator[Finding]:
    for match in _ADDRESS.finditer(seen.text):
        yield found("email", seen, *match.span(), 0.99)
