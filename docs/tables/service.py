"""The ways into the service, and every field of every format it speaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields

from tables._shared import ROOT, Parts, half
from tsuzuri import config
from tsuzuri.folder import find, names
from tsuzuri.serve.settings import Settings

USES = {"used": ("使う", "used"), "recorded": ("記録に残す", "recorded"), "hint": ("目安", "a hint"), "refused": ("断る", "refused")}


def routes(language: str) -> str:
    """One row a way in: its path, which scopes open it, the first line of its file."""
    head = "| 入口 | 要る権限 | |" if language == "ja" else "| way in | scope | |"
    lines = [head, "|---|---|---|"]
    for name in names("tsuzuri.serve.routes"):
        module = find("tsuzuri.serve.routes", name)
        scopes = ("なし" if language == "ja" else "none") if module.POLICY == "open" else ", ".join(f"`{scope}`" for scope in module.POLICY)
        paths = ", ".join(f"`{path}`" for path in module.PATHS)
        told = half(ROOT / "tsuzuri" / "serve" / "routes" / f"{name}.py", language)
        lines.append(f"| {module.METHOD} {paths} | {scopes} | [{told}](../../tsuzuri/serve/routes/{name}.py) |")
    return "\n".join(lines)


def wire(format: str, table_of: str = "FIELDS") -> Callable[[str], str]:
    """One row a field of a wire format, those that are refused last."""

    def table(language: str) -> str:
        fields = sorted(getattr(find("tsuzuri.serve.wire", format), table_of), key=lambda field: list(USES).index(field.use))
        lines = ["| 項目 | | |" if language == "ja" else "| field | | |", "|---|---|---|"]
        for field in fields:
            told = str(field.words.ja if language == "ja" else field.words.en).replace("|", "\\|")
            neutral = ", ".join(json.dumps(value, ensure_ascii=False) for value in field.neutral)
            taken = (f" `{neutral}` は受け付ける" if language == "ja" else f" `{neutral}` is taken") if neutral else ""
            lines.append(f"| `{field.name}` | {USES[field.use][language != 'ja']} | {told}{taken} |")
        return "\n".join(lines)

    return table


def settings(language: str) -> str:
    """One row a key of a server's file of settings."""
    lines = ["| 項目 | 起動時の指定 | 既定 | |" if language == "ja" else "| key | flag | default | |", "|---|---|---|---|"]
    for each in fields(Settings):
        key = each.metadata["key"]
        flag = f"`{key.flag} {key.shown}`" if key.shown else f"`{key.flag}`" if key.flag else "-"
        if each.default is True:
            flag = f"`{key.flag.replace('--', '--no-', 1)}`"
        default = config.to_yaml({"x": {} if each.default is MISSING else each.default})[3:].strip()
        told = (key.words.ja if language == "ja" else key.words.en).replace("|", "\\|")
        lines.append(f"| `{each.name}` | {flag} | `{default}` | {told} |")
    return "\n".join(lines)


PARTS: Parts = {
    "settings": settings,
    "routes": routes,
    "chat_fields": wire("openai_chat"),
    "completions_fields": wire("openai_completions"),
    "messages_fields": wire("anthropic_messages"),
    "embeddings_fields": wire("openai_embeddings"),
    "responses_fields": wire("openai_responses"),
    "count_fields": wire("openai_responses", "COUNT"),
    "fetch_fields": wire("openai_responses", "FETCH"),
    "items_fields": wire("openai_responses", "ITEMS"),
    "moderations_fields": wire("openai_moderations"),
    "rerank_fields": wire("rerank"),
    "ollama_chat_fields": wire("ollama", "CHAT"),
    "ollama_generate_fields": wire("ollama", "GENERATE"),
    "ollama_options_fields": wire("ollama", "OPTIONS"),
    "ollama_embed_fields": wire("ollama", "EMBED"),
    "ollama_show_fields": wire("ollama", "SHOW"),
}
