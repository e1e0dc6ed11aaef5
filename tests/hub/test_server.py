"""Our server speaks the real protocol: the official client fetches the same bytes from it, by the same ways."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hub_server import Close, Hub, Whole

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(range(256)) * 47_000,  # over 10 MiB, the block of the official client: less is never resumed
    "folder/日本語 の名前.json": b"{}",
    "pytorch_model.bin": b"bin",
    "empty.json": b"",
}
OFFICIAL = """
import sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

name, out = sys.argv[1], Path(sys.argv[2])
info = HfApi().model_info(name, files_metadata=True)
print(info.sha, *[f"{s.rfilename}|{s.size}|{s.blob_id}|{s.lfs.sha256 if s.lfs else None}" for s in info.siblings], sep="\\n")
one = Path(hf_hub_download(name, "model.safetensors", local_dir=out / "one"))
snapshot_download(name, local_dir=out / "all")
snapshot_download(name, revision=info.sha, local_dir=out / "commit")
"""


def official(hub: Hub, name: str, out: Path) -> list[str]:
    """What huggingface_hub prints, in a process of its own: it reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    settings |= {"HF_HOME": str(out / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    line = [sys.executable, "-c", OFFICIAL, name, str(out)]
    done = subprocess.run(line, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_official_client_fetches_the_same_bytes(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("owner/name", FILES)
    hub.fault("model.safetensors", Close(after=11_000_000))  # the official client goes on with a range, too
    found, *rows = official(hub, "owner/name", tmp_path)
    assert found == commit
    assert rows == [
        f"{entry['rfilename']}|{entry['size']}|{entry['blobId']}|{entry['lfs']['sha256'] if 'lfs' in entry else None}"  # type: ignore[index]
        for entry in hub.siblings("owner/name", commit)
    ]
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    for place in ("all", "commit"):
        assert {path: (tmp_path / place / path).read_bytes() for path in FILES} == FILES
    ranges = [headers["range"] for role, _, headers in hub.requests if role == "elsewhere" and "range" in headers]
    assert ranges == ["bytes=10485760-"]
    assert hub.asked("/api/resolve-cache/"), "small files come by way of a relative redirect"


def test_the_official_client_copes_with_a_server_that_ignores_ranges(hub: Hub, tmp_path: Path) -> None:
    hub.add("owner/name", FILES)
    hub.fault("model.safetensors", Close(after=11_000_000), Whole())
    official(hub, "owner/name", tmp_path)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == FILES["model.safetensors"]
