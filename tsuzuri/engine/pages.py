"""Who holds which page of keys and values, and which pages are found again by what they hold.

In: how many pages there are and how many tokens one has. Out: `take`, `hold`, `release`; `known` whole pages of a text that were
computed before, `remember` those that now are. A page that nobody holds stays known until its room is needed, the longest unused
first. Two texts share a page only where everything before it is the same too, and never across tenants: the key of a page is a
hash of the tenant, all ids before it and its own. It knows no tensors (Kwon et al. 2023, PagedAttention).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

Key = bytes


class Pages:
    def __init__(self, count: int, size: int) -> None:
        """`count` pages of `size` tokens."""
        self.count, self.size = count, size
        self._holders = [0] * count
        self._empty = list(range(count))[::-1]  # held by nobody, and known for nothing
        self._kept: OrderedDict[int, None] = OrderedDict()  # held by nobody, still known; the longest unused first
        self._page: dict[Key, int] = {}
        self._key: dict[int, Key] = {}

    @property
    def free(self) -> int:
        """Pages that can be taken."""
        return len(self._empty) + len(self._kept)

    def take(self, count: int) -> list[int] | None:
        """That many pages for the caller to write, held by it alone; None, and nothing taken, where there are not as many."""
        if count > self.free:
            return None
        return [self._one() for _ in range(count)]

    def hold(self, pages: Sequence[int]) -> None:
        """One more holder of each; they are only read from now on."""
        for page in pages:
            self._kept.pop(page, None)
            self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """One holder less. The last pages of a text are forgotten before its first: without those they would be of no use."""
        for page in reversed(pages):
            assert self._holders[page] > 0, "a page is given back once by each holder"
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._key:
                    self._kept[page] = None
                else:
                    self._empty.append(page)

    def known(self, keys: Iterable[Key]) -> list[int]:
        """The pages of as many keys from the first on as are there."""
        found = []
        for key in keys:
            if key not in self._page:
                break
            found.append(self._page[key])
        return found

    def remember(self, page: int, key: Key) -> None:
        """The page is whole and holds this; where another one does already, that one stays the known one."""
        if key not in self._page and page not in self._key:
            self._page[key], self._key[page] = page, key

    def _one(self) -> int:
        if self._empty:
            page = self._empty.pop()
        else:
            page, _ = self._kept.popitem(last=False)
            del self._page[self._key.pop(page)]
        self._holders[page] = 1
        return page

    def holders(self, page: int) -> int:
        return self._holders[page]


def root(tenant: str, regime: int = 0) -> Key:
    """What stands before the first page of a tenant's texts; `regime` tells apart texts whose keys differ though their ids do not."""
    return hashlib.blake2b(f"{regime} {tenant}".encode(), digest_size=16, person=b"tsuzuri.pages").digest()


def following(before: Key, ids: Sequence[int]) -> Key:
    """The key of a page of these ids behind another."""
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=16, key=before).digest()
