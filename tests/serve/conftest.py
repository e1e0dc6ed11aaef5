"""Real servers on 127.0.0.1: scripted models and a tiny one with random weights, keys in a real database."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from served import Running

from tsuzuri.serve.app import Service
from tsuzuri.serve.models import Pool, Served
from tsuzuri.serve.server import Address, Server, listen
from tsuzuri.store import database, keys


@pytest.fixture(scope="session")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[database.Database]:
    place = tmp_path_factory.mktemp("service")
    with database.open(place / "data", place / "secrets") as found:
        yield found


@pytest.fixture(scope="session")
def make_key(db: database.Database) -> Callable[..., tuple[keys.Key, str]]:
    def make(*scopes: str, **limits: Any) -> tuple[keys.Key, str]:
        return keys.create(db, "test", scopes=scopes or keys.SCOPES, **limits)

    return make


@pytest.fixture(scope="session")
def serving(db: database.Database) -> Callable[..., Any]:
    """`with serving(model, …) as running:`"""
    _, secret = keys.create(db, "all", scopes=keys.SCOPES, concurrent=64)

    @contextmanager
    def start(*models: Served, grace: float = 0.2, **how: Any) -> Iterator[Running]:
        service = Service(Pool(models), db, **how)
        at = listen(Address(port=0))
        server = Server(service, Address(), grace)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        running = Running(f"http://127.0.0.1:{at.getsockname()[1]}", secret, service, server, thread)
        _until_up(at.getsockname()[1])
        try:
            yield running
        finally:
            if thread.is_alive():
                running.stop()

    return start


def _until_up(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            continue
        return
    pytest.fail("the server does not come up")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model directory with random weights."""
    import torch

    from tsuzuri.chat import template
    from tsuzuri.model import weights
    from tsuzuri.model.transformer import Shape, Transformer
    from tsuzuri.text import fast

    path = tmp_path_factory.mktemp("models") / "tiny"
    path.mkdir()
    text = (Path(__file__).parents[1] / "data" / "ryoriten.txt").read_text(encoding="utf-8")
    tokenizer = fast.train("bpe", [text] * 2, 600)
    shape = Shape(
        vocab_size=600, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
        max_position_embeddings=256,
    )  # fmt: skip
    model, generator = Transformer(shape), torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.15, generator=generator) if weight.dim() > 1 else torch.nn.init.ones_(weight)
    weights.save(model, path)
    tokenizer.save(path)
    template.save(path)
    return path
