"""Many requests on one model: each `step` schedules, computes, chooses and hands out a token to whoever is ready for one.

    schedule    one token for every sequence that is under way, the rest of BUDGET for prompts, in the order they came, tenants in turn;
                what is left then for guesses at what comes next
    forward     all of it in one call of the model
    choose      by each request's own rules and its own numbers
    deliver     to whoever reads the stream; the pages of who is done go back

In: `stream`, from any thread, and `step`, from one (`run` calls it for ever). Out: `Stream`s of tokens, the same for a request
whether it was alone or not, read in one piece or several, interrupted for want of pages, or begun with pages of another text.
Pages are those of `pages.py`; what a page holds is the business of `running.py`. It knows no text.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from tsuzuri.engine.choosing import Best, Choosing, best
from tsuzuri.engine.disk import Disk
from tsuzuri.engine.engine import LocalEngine
from tsuzuri.engine.paged import Part, Place
from tsuzuri.engine.pages import Key, Pages, following, root
from tsuzuri.engine.running import BUDGET, BUDGET_CUDA, SIZE, runner
from tsuzuri.engine.sampling import Sampling
from tsuzuri.errors import BusyError, ContextError, SpaceError, Words
from tsuzuri.model.parts.rotary import regime
from tsuzuri.types import Token

WAITING = 1024  # requests that may wait
Told: TypeAlias = Token | BaseException | None  # the next token, what went wrong, or that no more will come
Tell: TypeAlias = Callable[[Told], None]


@dataclass(eq=False, slots=True)
class Request:
    """One submitted prompt on its way."""

    tenant: str
    ids: list[int]  # what the model reads: the prompt, and what was chosen since
    prompt_tokens: int
    choosing: Choosing
    place: Place
    regime: int  # of its rotary frequencies: keys of another regime are other keys
    tell: Tell
    computed: int = 0  # tokens of prompt and output whose keys lie in pages
    remembered: int = 0  # of its pages that are known
    keys: list[Key] = field(default_factory=list)  # of its whole pages, as far as they were asked for
    cached: int = 0  # tokens of the prompt that were found in pages
    guesses: list[int] = field(default_factory=list)  # read in the step under way, behind its ids
    cancelled: bool = False

    def key(self, number: int, size: int) -> Key:
        """Of its page of that number."""
        while len(self.keys) <= number:
            start = len(self.keys) * size
            before = self.keys[-1] if self.keys else root(self.tenant, self.regime)
            self.keys.append(following(before, self.ids[start : start + size]))
        return self.keys[number]


class Stream(Iterator[Token]):
    """The tokens of one request. Letting go of it, `close` or `cancel` ends the work before the next step."""

    def __init__(self, request: Request, arrived: queue.SimpleQueue[Told]) -> None:
        self._request, self._arrived, self._over = request, arrived, False

    def __next__(self) -> Token:
        if self._over:
            raise StopIteration
        found = self._arrived.get()
        if isinstance(found, BaseException):
            self._over = True
            raise found
        if found is None:
            self._over = True
            raise StopIteration
        self._over = found.finish is not None
        return found

    @property
    def prompt_tokens(self) -> int:
        return self._request.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        return len(self._request.choosing.history.output)

    @property
    def cached_tokens(self) -> int:
        return self._request.cached

    @property
    def logprob(self) -> float:
        """Of all its tokens so far."""
        return self._request.choosing.logprob

    @property
    def offered(self) -> int:
        """Tokens that were guessed."""
        return self._request.choosing.offered

    @property
    def accepted(self) -> int:
        """Guesses that were right."""
        return self._request.choosing.accepted

    def cancel(self) -> None:
        self._request.cancelled = True

    close = cancel

    def __del__(self) -> None:
        self._request.cancelled = True


class BatchEngine:
    """`types.Engine` for many at once. `one` is the engine of the same model for one at a time: it checks what is asked, scores and embeds."""

    def __init__(
        self,
        one: LocalEngine,
        pages: int,
        *,
        size: int = SIZE,
        budget: int | None = None,
        waiting: int = WAITING,
        disk: Disk | None = None,
        compiled: bool = False,
    ) -> None:
        """`pages` of `size` tokens for all sequences together; `budget`: tokens of a step (None: as many as suit the device). A compiled model has its own size and most.
        With a `disk`, what is known is written while there is nothing else to do, and found again after a restart.
        `compiled`: on CUDA, torch compiles the steps of new tokens, half a minute or more for each size."""
        self.one, self._most, self._disk = one, waiting, disk
        usual = BUDGET_CUDA if torch.device(one.device).type == "cuda" else BUDGET
        self._runner = runner(one, pages, size, usual if budget is None else budget, compiled=compiled)
        self.pages, self.budget = Pages(pages, self._runner.size), self._runner.most
        self._waiting: dict[str, deque[Request]] = {}  # by tenant, in turn
        self._running: list[Request] = []  # in the order in which they began
        self._unsaved: deque[Key] = deque()  # of pages that are not on the disk yet
        self._over = False
        self.disk_lost: SpaceError | None = None  # why it goes on without the disk: that only saves time
        self._lock, self._work = threading.Lock(), threading.Event()

    # ── from any thread

    def stream(self, ids: Sequence[int], sampling: Sampling, tenant: str = "", tell: Tell | None = None) -> Stream:
        """Tokens that follow `ids`; where there is a `tell`, it is told them, in the thread that computes, and who has the stream only
        counts them or ends it. Raises what `LocalEngine.stream` raises, ContextError where all pages together are too few, and
        BusyError where too many wait."""
        self.one.check(ids, room=1)
        self.one.check_sampling(sampling)
        first = self.one.first(ids)
        most = self.one.context_length if sampling.max_tokens is None else min(self.one.context_length, len(first) + sampling.max_tokens)
        if -(-most // self.pages.size) > self.pages.count:
            raise ContextError(
                Words(f"{len(first)} トークンの続きを頼みました。", f"Asking for what follows {len(first)} tokens."),
                found=Words(
                    f"ページは全部で {self.pages.count * self.pages.size} トークン分で、{most} トークンは入りません。",
                    f"All pages together hold {self.pages.count * self.pages.size} tokens, not {most}.",
                ),
                todo=Words("max_tokens か文章を短くしてください。", "Ask for fewer max_tokens, or shorten the text."),
            )
        choosing = self.one.choosing(first, sampling, tenant)
        with self._lock:
            self._admit()
        place = Place(most, memory=self.one.memory(ids))
        arrived: queue.SimpleQueue[Told] = queue.SimpleQueue()
        request = Request(tenant, [*first], len(ids), choosing, place, regime(self.one.scaling, most), tell or arrived.put)
        with self._lock:
            self._admit()  # a source took its time
            self._waiting.setdefault(tenant, deque()).append(request)
        self._work.set()
        return Stream(request, arrived)

    def _admit(self) -> None:
        """Raises BusyError where too many wait, or nobody computes any more."""
        asked = Words("生成を頼みました。", "Asking for a generation.")
        if self._over:
            raise BusyError(
                asked,
                found=Words("エンジンは止まっています。", "The engine has stopped."),
                todo=Words("新しいエンジンを作って頼んでください。", "Make a new engine and ask that."),
            )
        if sum(map(len, self._waiting.values())) >= self._most:
            raise BusyError(
                asked,
                found=Words(f"すでに {self._most} 件が待っています。", f"{self._most} are waiting already."),
                todo=Words("少し待ってから、もう一度頼んでください。", "Wait a moment and ask again."),
            )

    def score(self, ids: Sequence[int]) -> list[float]:
        return self.one.score(ids)

    def embed(self, ids: Sequence[int]) -> list[float]:
        return self.one.embed(ids)

    # ── in one thread

    def run(self, stop: threading.Event) -> None:
        """Steps until `stop`; sleeps while there is nothing to do. Who still reads then is told that nothing more comes, and whoever
        asks after that is refused."""
        try:
            while not stop.is_set():
                if not self.step() and not self._save():
                    self._work.wait(0.1)
                    self._work.clear()
            while self._save():
                pass
        finally:
            with self._lock:
                self._over = True
            for request in [*self._running]:
                self._end(request, None)
            while (left := self._next()) is not None:
                left.tell(None)

    def _save(self) -> bool:
        """Writes one page that is still known; False where there is none."""
        while self._disk is not None and self._unsaved:
            key = self._unsaved.popleft()
            for page in self.pages.known([key]):
                try:
                    self._disk.keep(key, self._runner.contents(page))
                except SpaceError as error:
                    self._disk, self.disk_lost = None, error
                return True
        return False

    @torch.inference_mode()
    def step(self) -> bool:
        """One step; False where there was nothing to do."""
        parts = self._schedule()
        if not parts:
            return False
        ids = [id for request, part in parts for id in (*request.ids[part.start : part.start + part.count], *request.guesses)]
        ready: list[tuple[Request, int]] = []  # with how many of the chosen rows are its own
        chosen: list[int] = []
        at = 0
        for request, part in parts:
            at += part.count
            if part.start + part.count >= len(request.ids):
                ready.append((request, 1 + len(request.guesses)))
                chosen += range(at - 1 - len(request.guesses), at)
        try:
            logits = self._runner([part for _, part in parts], ids, chosen)
        except Exception as error:  # it goes to whoever reads one of these
            for request, _ in parts:
                self._end(request, error)
            return True
        for request, part in parts:
            request.computed = part.start + part.count - len(request.guesses)
            self._remember(request)
        for request, rows in zip((request for request, _ in ready), _rows(logits.float(), ready), strict=True):
            self._deliver(request, rows)
        return True

    def _deliver(self, request: Request, logits: Sequence[Tensor | Best]) -> None:
        """Of 1 + guesses places: its tokens, one more than guesses that are right. What was computed of wrong ones is written over."""
        sure = request.computed - 1
        try:
            for token in request.choosing.follow(logits, request.guesses):
                request.ids.append(token.id)
                request.tell(token)
                sure += 1
                request.computed = sure
                self._remember(request)
                if token.finish:
                    self._end(request, None)
        except Exception as error:
            self._end(request, error)

    def _end(self, request: Request, last: BaseException | None) -> None:
        """Its pages go back, and its reader is told if it is not so already."""
        self._running.remove(request)
        self.pages.release(request.place.pages)
        request.place = Place(request.place.bound)
        request.tell(last)

    # ── who computes what

    def _schedule(self) -> list[tuple[Request, Part]]:
        """What the next step computes. Whoever lets go of its pages for another's sake is first in the line again."""
        for request in [request for request in self._running if request.cancelled]:
            self._end(request, None)
        parts: dict[Request, Part] = {}
        budget = self.budget
        for request in sorted(self._running, key=lambda request: len(request.ids) - request.computed > 1):  # those that write first
            if budget == 0 or request not in self._running:  # gone for want of pages
                continue
            count = min(len(request.ids) - request.computed, budget)
            if self._room(request, request.computed + count, parts):
                parts[request] = Part(request.place, request.computed, count)
                budget -= count
        later: list[Request] = []
        while budget and (new := self._next()) is not None:
            request = new
            self._begin(request)
            if self._computed_by_another(request):
                later.append(request)
                continue
            count = min(len(request.ids) - request.computed, budget)
            pages = self._more(request, request.computed + count)
            if pages is None:
                self._back(request)
                break
            request.place.pages += pages
            self._running.append(request)
            parts[request] = Part(request.place, request.computed, count)
            budget -= count
        for request in reversed(later):
            self._back(request)
        for request in parts:
            parts[request] = self._guessed(request, parts[request], budget)
            budget -= len(request.guesses)
        return list(parts.items())

    def _guessed(self, request: Request, part: Part, room: int) -> Part:
        """With guesses behind it, of one that writes: as many as there is room for without anybody's pages. A state cannot be taken back."""
        request.guesses = []
        if not request.choosing.history.output or part.start + part.count < len(request.ids) or self._runner.recurs:
            return part
        here = len(request.place.pages) * self.pages.size - len(request.ids)
        request.guesses = request.choosing.guesses(min(room, here + self.pages.free * self.pages.size))
        if request.guesses:
            pages = self._more(request, len(request.ids) + len(request.guesses))
            assert pages is not None
            request.place.pages += pages
        return Part(part.place, part.start, part.count + len(request.guesses))

    def _computed_by_another(self, request: Request) -> bool:
        """Whether a page that it needs next is being computed for somebody else: it can begin with that a little later."""
        number, size = len(request.place.pages), self.pages.size
        if not self._shares(request) or (number + 1) * size >= len(request.ids):
            return False
        key = request.key(number, size)
        return any(
            other.remembered == number and other.key(number, size) == key
            for other in self._running
            if self._shares(other) and (other.remembered + 1) * size <= len(other.ids)
        )

    def _shares(self, request: Request) -> bool:
        """Whether what its pages hold is all that was made of its ids: neither a state nor another text."""
        return not self._runner.recurs and request.place.memory is None

    def _room(self, request: Request, length: int, parts: dict[Request, Part]) -> bool:
        """Pages for `length` tokens, if need be those of whoever began last; False where that is the request itself."""
        while (pages := self._more(request, length)) is None:
            last = self._running[-1]
            self._running.remove(last)
            parts.pop(last, None)
            self._back(last)
            if last is request:
                return False
        request.place.pages += pages
        return True

    def _more(self, request: Request, length: int) -> list[int] | None:
        return self.pages.take(max(0, -(-length // self.pages.size) - len(request.place.pages)))

    def _back(self, request: Request) -> None:
        """Its pages are let go: it will be computed again, with what of them is still known then."""
        self.pages.release(request.place.pages)
        fresh = Place(request.place.bound)
        fresh.memory, fresh.looked = request.place.memory, request.place.looked
        request.place, request.computed, request.remembered = fresh, 0, 0
        with self._lock:
            self._waiting.setdefault(request.tenant, deque()).appendleft(request)

    def _next(self) -> Request | None:
        """Of the tenant whose turn it is the one that waits longest; its tenant is last in turn then."""
        with self._lock:
            while self._waiting:
                tenant = next(iter(self._waiting))
                line = self._waiting.pop(tenant)
                request = line.popleft()
                if line:
                    self._waiting[tenant] = line
                if not request.cancelled:
                    return request
                request.tell(None)
        return None

    def _begin(self, request: Request) -> None:
        """What is known of its beginning need not be computed, but for the last token: its logits are needed."""
        if not self._shares(request):
            return
        most = (len(request.ids) - 1) // self.pages.size
        found = self.pages.known(request.key(number, self.pages.size) for number in range(most))
        self.pages.hold(found)
        while self._disk is not None and len(found) < most and (page := self._read(request.key(len(found), self.pages.size))) is not None:
            found.append(page)
        request.place.pages = found
        request.computed, request.remembered = len(found) * self.pages.size, len(found)
        if not request.choosing.history.output:
            request.cached = request.computed

    def _read(self, key: Key) -> int | None:
        """The page of that key from the disk, held by the caller; None where it is not there or there is no page for it."""
        try:
            contents = None if self._disk is None else self._disk.find(key)
        except SpaceError as error:
            self._disk, self.disk_lost = None, error
            contents = None
        pages = None if contents is None else self.pages.take(1)
        if contents is None or pages is None:
            return None
        self._runner.fill(pages[0], contents)
        self.pages.remember(pages[0], key)
        return pages[0]

    def _remember(self, request: Request) -> None:
        """Whole pages of it can be found by others now."""
        if not self._shares(request):
            return
        whole = request.computed // self.pages.size
        for number in range(request.remembered, whole):
            key = request.key(number, self.pages.size)
            self.pages.remember(request.place.pages[number], key)
            if self._disk is not None and key not in self._disk:
                self._unsaved.append(key)
        request.remembered = max(request.remembered, whole)


def _rows(logits: Tensor, ready: Sequence[tuple[Request, int]]) -> Iterator[Sequence[Tensor | Best]]:
    """float32 (N, V), and whose they are -> for each request its rows on the CPU; of one that only takes the best, that of each row,
    found for all of them at once and where the logits lie."""
    at, taken = 0, list[tuple[int, int, bool]]()
    for request, count in ready:
        taken.append((at, count, request.choosing.is_greedy(logits.shape[-1])))
        at += count
    whole = [row for start, count, greedy in taken if not greedy for row in range(start, start + count)]
    short = [row for start, count, greedy in taken if greedy for row in range(start, start + count)]
    found: dict[int, Tensor | Best] = {}
    if whole:
        found.update(zip(whole, logits[whole].cpu(), strict=True))
    if short:
        found.update(zip(short, best(logits if len(short) == at else logits[short]), strict=True))
    for start, count, _ in taken:
        yield [found[row] for row in range(start, start + count)]
