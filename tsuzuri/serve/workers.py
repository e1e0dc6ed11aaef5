"""Models of our own in processes of their own: what computes never waits for what reads requests, nor the other way round.

In: a directory. Out: a `Served` like that of `models.from_directory`; the law is that it answers the same. Lines go over a socket (`lines.py`)
to `worker.py`, which sees texts and tokens, and of the environment nothing secret. One that dies takes the requests with it that it was
working on, and no others: with the next one a new process begins. This process loads no torch.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from tsuzuri.beside import bare
from tsuzuri.errors import BusyError, ConfigError, TsuzuriError, Words
from tsuzuri.serve import lines
from tsuzuri.serve.models import Embedded, Prepared, Served, from_directory, too_long
from tsuzuri.serve.running import closing
from tsuzuri.types import Chat, Event, Message, Options

FEW = 1 << 14  # numbers of a line
LAST = 60.0  # seconds for a process to end by itself
PASSED_ON = ("HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES", "TSUZURI_NATIVE", "TSUZURI_LANG", "LANG", "LC_ALL", "LC_MESSAGES",
             "OMP_NUM_THREADS", "OMP_WAIT_POLICY")  # of the environment, besides what each of our processes is told  # fmt: skip
LOG = logging.getLogger("tsuzuri.serve")
ASKED = Words("モデルに頼みました。", "Asking the model.")


def beside(directory: Path, **how: object) -> Served:
    """A model of our own, one that only reads, too. Raises what `from_directory` raises."""
    if sys.platform == "win32":  # no socket can be given to a process there as its input
        return from_directory(directory, **how)
    worker = Worker(directory, **how)
    if not worker.writes:
        return Served(worker.name, None, reader=worker)
    return Served(worker.name, worker.chat(""), worker, tools=worker.tools)


class Worker:
    """`Tokens` and `Reader` of a model in a process of its own. Used from one event loop; made and closed outside of it."""

    program: ClassVar[tuple[str, ...]] = ("-m", "tsuzuri.serve.worker")

    def __init__(self, directory: Path, **how: object) -> None:
        asked = {"directory": directory, **how}
        self._directory, self._line = directory, [sys.executable, "-P", *self.program, json.dumps(asked, default=str)]
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Queue[Mapping[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._closed = False
        self._begin()

    # ── what can be asked

    def chat(self, tenant: str) -> Chat:
        async def chat(messages: Sequence[Message], options: Options) -> AsyncIterator[Event]:
            parts = self._parts("chat", tenant, [*messages], options)
            async with closing(parts):
                async for event in parts:
                    yield event

        return chat

    def complete(self, prompt: str | Sequence[int], options: Options, tenant: str) -> AsyncIterator[Event]:
        return self._parts("complete", prompt if isinstance(prompt, str) else [*prompt], options, tenant)

    async def embed(self, prompts: Sequence[Prepared]) -> AsyncIterator[tuple[int, Embedded]]:
        for first, some in _few(prompts):
            parts = self._parts("embed", some)
            async with closing(parts):
                async for place, one in parts:
                    yield first + place, one

    def spell(self, id: int) -> bytes:
        return self._spelled[id] if id < len(self._spelled) else f"<{id}>".encode()

    async def fits(self, said: str | Sequence[Message]) -> None:
        """Megabytes are counted here; only what a template makes of them is asked there."""
        texts = [said] if isinstance(said, str) else [message.content for message in said]
        error = too_long(texts, self._longest, self.context_length)
        if error is not None and (self._plainly or isinstance(said, str)):
            raise error
        if error is not None:
            await self._asked("fits", [*said])

    async def encode(self, text: str) -> list[int]:
        return await self._asked("encode", text)  # type: ignore[no-any-return]

    async def decode(self, ids: Sequence[int]) -> str:
        return await self._asked("decode", [*ids])  # type: ignore[no-any-return]

    async def conversation(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] = ()) -> list[int]:
        return await self._asked("conversation", [*messages], [*tools])  # type: ignore[no-any-return]

    async def length(self, said: str | Sequence[Message], tools: Sequence[Mapping[str, object]] = ()) -> int:
        return await self._asked("length", said if isinstance(said, str) else [*said], [*tools])  # type: ignore[no-any-return]

    async def source(self, prompt: str) -> list[int]:
        return await self._asked("source", prompt)  # type: ignore[no-any-return]

    async def prepare(self, prompt: str | Sequence[int]) -> Prepared:
        return await self._asked("prepare", prompt if isinstance(prompt, str) else [*prompt])  # type: ignore[no-any-return]

    # ── the process

    @property
    def process(self) -> int:
        """Its id."""
        return self._process.pid

    def close(self) -> None:
        """It ends by itself, once what it remembers is on the disk."""
        self._closed = True
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        _ended(self._process)
        if self._listening is None:  # else whoever listens closes it
            self._channel.close()

    def _begin(self) -> None:
        """Starts it, and waits until its model is open; of a directory that was trained anew meanwhile, the model that is there now.
        Raises what went wrong there, and OSError."""
        channel, theirs = socket.socketpair()
        environment = bare(*PASSED_ON)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]))
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: S603  our own module, by our own interpreter
                    self._line, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment, start_new_session=True
                )  # a session of its own: Ctrl-C is for the server, which ends it when answers are done
        except BaseException:
            channel.close()
            raise
        try:
            facts = self._facts(channel, process)
        except BaseException:
            channel.close()
            process.kill()
            process.wait()
            raise
        self._channel, self._process = channel, process
        self.name, self.writes, self.tools = facts["name"], facts["writes"], facts["tools"]
        self.context_length: int = facts["context_length"]
        self._longest, self._plainly = facts["longest"], facts["plainly"]
        self._spelled: list[bytes] = [each.encode("latin-1") for each in facts["spelled"]]

    def _facts(self, channel: socket.socket, process: subprocess.Popen[bytes]) -> Mapping[str, Any]:
        held = bytearray()
        while not held.endswith(b"\n"):
            piece = channel.recv(1 << 16)
            if not piece:
                raise self._dead(_ended(process))
            held += piece
        found = lines.read(bytes(held))
        if "error" in found:
            raise lines.error(found["error"])
        return found

    def _dead(self, code: int) -> ConfigError:
        return ConfigError(
            Words(f"モデル {self._directory} を開こうとしました。", f"Opening the model {self._directory}."),
            found=Words(
                f"計算するプロセスが終わりました（終了コード {code}）。", f"The process that computes has ended (exit code {code})."
            ),
            todo=Words("メモリの空きと、上に出たメッセージを確かめてください。", "Check the free memory, and what it said above."),
        )

    # ── lines

    async def _asked(self, do: str, *given: Any) -> Any:
        [found] = [part async for part in self._parts(do, *given)]
        return found

    async def _parts(self, do: str, *given: Any) -> AsyncIterator[Any]:
        """Whoever stops listening ends the work there."""
        await self._up()
        id, arrived = next(self._ids), asyncio.Queue[Mapping[str, Any]]()
        self._waiting[id] = arrived
        over = False
        try:
            try:
                await self._send({"id": id, "do": do, "with": lines.plain([*given])})
            except ConnectionError as error:  # it has ended this very moment
                over = True
                raise _gone() from error
            while not over:
                found = await arrived.get()
                over = "part" not in found
                if not over:
                    yield lines.value(found["part"])
            if "error" in found:
                raise found["error"] if isinstance(found["error"], TsuzuriError) else lines.error(found["error"])
            if "fault" in found:
                LOG.error("the process that computes: %s", found["fault"])
                raise RuntimeError("a fault in the process that computes")
        finally:
            del self._waiting[id]
            if not over and self._writer is not None:
                self._writer.write(lines.written({"id": id, "do": "end"}))  # not waited for: one that hangs holds nobody

    async def _send(self, line: Mapping[str, Any]) -> None:
        """Raises ConnectionError where nobody listens any more."""
        if self._writer is None:
            raise ConnectionResetError
        self._writer.write(lines.written(line))
        await self._writer.drain()

    async def _up(self) -> None:
        """It runs and is listened to. Whoever waits for that and leaves stops nothing. Raises BusyError where it cannot be started again."""
        if self._writer is not None:
            return
        if self._closed:
            raise _gone()
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_heard)
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        if self._listening is not None:
            await asyncio.wait({self._listening})
            LOG.error("the process that computes %s has ended; it is started again", self.name)
            try:
                await asyncio.to_thread(self._begin)
            except (TsuzuriError, OSError) as error:
                raise _gone() from error
            if self._closed:  # meanwhile
                self._channel.close()
                raise _gone()
        reader, self._writer = await asyncio.open_connection(sock=self._channel, limit=lines.MOST)
        self._listening = asyncio.create_task(self._listen(reader, self._writer))

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until it ends: then so does all that waits for it."""
        try:
            try:
                while (line := await reader.readline()).endswith(b"\n"):  # else it has died, perhaps in the middle of one
                    found = lines.read(line)
                    waiting = self._waiting.get(found["id"])
                    if waiting is not None:
                        waiting.put_nowait(found)
            except (ConnectionError, ValueError, KeyError) as error:
                LOG.error("the process that computes %s is not understood: %s", self.name, type(error).__name__)
            if not self._closed:  # it says nothing more, and nobody asked it to end
                self._process.kill()
        finally:
            self._writer = None
            for waiting in self._waiting.values():
                waiting.put_nowait({"error": _gone()})
            writer.close()
            await asyncio.to_thread(_ended, self._process)


def _few(prompts: Sequence[Prepared]) -> Iterator[tuple[int, list[Prepared]]]:
    """(place of the first, prompts) of as many together as make a line that is soon written and read."""
    first, some, size = 0, list[Prepared](), 0
    for place, one in enumerate(prompts):
        some.append(one)
        size += len(one.ids) + (len(one.ready.vector) if one.ready else 0)
        if size >= FEW:
            yield first, some
            first, some, size = place + 1, [], 0
    if some:
        yield first, some


def _heard(task: asyncio.Task[None]) -> None:
    """What went wrong in it, though whoever waited may have left."""
    if not task.cancelled():
        task.exception()


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code of one that is about to end; one that does not is ended."""
    try:
        return process.wait(LAST)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _gone() -> BusyError:
    return BusyError(
        ASKED,
        found=Words("計算するプロセスが終わりました。", "The process that computes has ended."),
        todo=Words("少し待ってから、もう一度頼んでください。", "Wait a moment and ask again."),
    )
