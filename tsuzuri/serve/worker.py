"""The process in which one model of our own computes: started by `workers.py`, one for each model.

In: a socket as standard input, and lines on it: what is to be done, or that nobody waits for it any more. Out: a line of facts once the
model is open, and for each thing to do its parts as they come and its end. It knows no keys, no database and no HTTP, and ends with
whoever started it.

    python -m tsuzuri.serve.worker '{"directory": "…", "quantize": "q8_0"}'
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tsuzuri.errors import TsuzuriError
from tsuzuri.serve import lines
from tsuzuri.serve.local import Local
from tsuzuri.serve.models import Served, from_directory
from tsuzuri.serve.refusal import where
from tsuzuri.serve.running import SWITCH, closing

CALLS = ("encode", "decode", "conversation", "length", "source", "prepare", "fits")  # that come to one value
STREAMS: Mapping[str, Callable[..., AsyncIterator[Any]]] = {
    "chat": lambda model, tenant, messages, options: model.tokens.chat(tenant)(messages, options),
    "complete": lambda model, *given: model.tokens.complete(*given),
    "embed": lambda model, prompts: model.mine.embed(prompts),
}


def main() -> None:
    # whoever stops all processes of a service means the server, which ends this one when answers are done
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)  # what a library prints is no line
    sys.setswitchinterval(SWITCH)
    asked = json.loads(sys.argv[1])
    how = {**asked, "pages": Path(asked["pages"]) if asked.get("pages") else None}
    try:
        model = from_directory(Path(how.pop("directory")), **how)
    except TsuzuriError as error:
        channel.sendall(lines.written({"error": lines.of_error(error)}))
        return
    try:
        channel.sendall(lines.written(facts(model)))
        asyncio.run(_serve(channel, model))
    except (BrokenPipeError, ConnectionResetError):  # whoever started it has gone
        pass
    finally:
        assert model.mine is not None
        model.mine.close()


def facts(model: Served) -> dict[str, Any]:
    """What is known of it for good. `spelled`: the bytes of each token, as Latin-1."""
    assert model.mine is not None
    found = {"name": model.name, "writes": model.tokens is not None, "tools": model.tools, "context_length": model.mine.context_length}
    if not isinstance(model.tokens, Local):
        return {**found, "longest": None, "plainly": True, "spelled": []}
    local = model.tokens
    spelled = [local.spell(id).decode("latin-1") for id in range(local.model.tokenizer.vocab_size)]
    return {**found, "longest": local.longest, "plainly": local.plainly, "spelled": spelled}


async def _serve(channel: socket.socket, model: Served) -> None:
    reader, writer = await asyncio.open_connection(sock=channel, limit=lines.MOST)
    under_way: dict[int, asyncio.Task[None]] = {}
    try:
        while line := await reader.readline():
            found = lines.read(line)  # its values are made where what is wrong with them is told
            id = found["id"]
            if found["do"] == "end":
                if id in under_way:
                    under_way.pop(id).cancel()
                continue
            task = asyncio.create_task(_done(writer, model, id, found["do"], found["with"]))
            under_way[id] = task
            task.add_done_callback(lambda _, id=id: under_way.pop(id, None))  # type: ignore[misc]
    finally:
        for task in [*under_way.values()]:
            task.cancel()
        await asyncio.gather(*under_way.values(), return_exceptions=True)
        writer.close()


async def _done(writer: asyncio.StreamWriter, model: Served, id: int, do: str, given: Any) -> None:
    with suppress(ConnectionError):
        try:
            async for part in _parts(model, do, lines.value(given)):
                writer.write(lines.written({"id": id, "part": lines.plain(part)}))
                await writer.drain()
            last: dict[str, Any] = {"end": True}
        except TsuzuriError as error:
            last = {"error": lines.of_error(error)}
        except Exception as error:
            last = {"fault": where(error)}
        writer.write(lines.written({"id": id, **last}))
        await writer.drain()


async def _parts(model: Served, do: str, given: list[Any]) -> AsyncIterator[Any]:
    if do in STREAMS:
        parts = STREAMS[do](model, *given)
        async with closing(parts):
            async for part in parts:
                yield part
        return
    assert do in CALLS, do
    yield await getattr(model.mine, do)(*given)


if __name__ == "__main__":
    main()
