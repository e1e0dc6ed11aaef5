"""Everything that can be set of a server, in one place: the keys of its file, the flags of `tsuzuri serve`, and the table in the docs.

In: a mapping from YAML, and what flags say. Out: `Settings`, checked for names, types and ranges. It loads nothing: what the values lead
to (models, keys, prices) is the business of `starting.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from tsuzuri import config
from tsuzuri.errors import ConfigError, Words

DEFAULT = Path("runs/tiny/model")  # what `make tiny` writes
REMOTE_KEY = "TSUZURI_REMOTE_KEY"  # the environment's key for models elsewhere; with _NAME behind it, for that one
TODO = Words("設定のファイルか、起動時の指定を直してください。", "Correct the file of settings, or the flag.")
FILES = ("remotes", "routes")  # what a file for --routes may say


@dataclass(frozen=True, slots=True)
class Key:
    """What a setting means. `flag`: None where it stands in the file alone. `shown`: of what kind its value is. `limits`: both are in."""

    words: Words
    flag: str | None = None
    shown: str | None = None
    limits: tuple[float, float] | None = None


def key(
    default: Any, ja: str, en: str, flag: str | None = None, shown: str | None = None, limits: tuple[float, float] | None = None
) -> Any:
    what = {"key": Key(Words(ja, en), flag, shown, limits)}
    return field(default_factory=dict, metadata=what) if default == {} else field(default=default, metadata=what)


@dataclass(frozen=True, slots=True)
class Settings:
    """One server's. Raises ConfigError naming the key for a number out of range."""

    models: tuple[Path, ...] = key(
        (),
        f"モデルのディレクトリ（複数可。何も指定しなければ {DEFAULT}）",
        f"model directories; {DEFAULT} where no model is named",
        "--model",
        "DIR",
    )
    remotes: Mapping[str, Any] = key(
        {},
        f"よそのモデル：アドレスか、提供元:モデル@アドレス（複数可。キーは環境変数 {REMOTE_KEY} か {REMOTE_KEY}_名前）",
        f"models elsewhere: URL or provider:model@URL; the key is in {REMOTE_KEY} or {REMOTE_KEY}_NAME",
        "--remote",
        "NAME=WHERE",
    )
    routes: Mapping[str, Any] = key(
        {},
        "どのモデルが答えるかの規則（起動時には、remotes と routes を書いた YAML のファイル）",
        "rules for which model answers (as a flag: a YAML file with remotes and routes)",
        "--routes",
        "FILE",
    )
    aliases: Mapping[str, str] = key(
        {}, "別名（複数可）。例：claude-*=tiny", "other names for models, such as claude-*=tiny", "--alias", "PATTERN=NAME"
    )
    host: str = key("127.0.0.1", "待ち受けるアドレス", "address to listen on", "--host")
    port: int = key(8000, "ポート（0 なら空いているもの）", "port; 0: any that is free", "--port", limits=(0, 65535))
    data_dir: Path | None = key(
        None,
        "データの置き場所。省くと TSUZURI_DATABASE_URL、TSUZURI_DATA_DIR、利用者のデータの場所の順",
        "where the data is; unless given TSUZURI_DATABASE_URL, TSUZURI_DATA_DIR, the place of a user's data",
        "--data-dir",
        "DIR",
    )
    names: tuple[str, ...] = key(
        (), "このサーバーの名前（Host に書かれるもの。複数可）", "names of this server in Host headers", "--name", "HOST"
    )
    trusted_proxies: tuple[str, ...] = key(
        (),
        "接続元（X-Forwarded-For、X-Forwarded-Proto）を信じてよい中継サーバー（複数可）",
        "proxies that are believed in X-Forwarded-For and X-Forwarded-Proto",
        "--trusted-proxy",
        "CIDR",
    )
    tls_cert: Path | None = key(None, "TLS の証明書", "TLS certificate", "--tls-cert", "FILE")
    tls_key: Path | None = key(None, "その秘密鍵", "its private key", "--tls-key", "FILE")
    plain_http: bool = key(False, "ほかの計算機にも、暗号化せずに公開する", "serve other machines, too, and unencrypted", "--plain-http")
    share_port: bool = key(
        False,
        "同じポートをほかの tsuzuri serve と分け合う（止めずに入れ替えるとき）",
        "share the port with other servers, to replace one by one",
        "--share-port",
    )
    grace: float = key(
        30.0,
        "止めるとき、答えの途中のものを待つ秒数",
        "seconds that answers under way have when it is told to stop",
        "--grace",
        limits=(0, 3600),
    )
    deadline: float = key(
        600.0,
        "一つの答えにかけてよい秒数。過ぎたらそこで打ち切る",
        "seconds that one answer may take; then it is cut off",
        "--deadline",
        limits=(1, 86400),
    )
    at_once: int = key(64, "サーバー全体で同時に受け付ける依頼の数", "requests under way at once, in the whole server", limits=(1, 65536))
    shared_limits: bool = key(
        False,
        "一つの SQLite を使う複数のサーバーで、キーの上限を合わせて数える（PostgreSQL ではいつもそうする）",
        "several servers on one SQLite count the limits of keys together (on PostgreSQL they always do)",
        "--shared-limits",
    )
    prices: Path | None = key(
        None,
        "料金表（YAML）。予算はこれで数える。付属の表より優先",
        "table of prices (YAML) for budgets; it goes before the one that comes with it",
        "--prices",
        "FILE",
    )
    free: tuple[str, ...] = key(
        (), "料金をかからないものとして数えるモデル（複数可）", "models that are counted as costing nothing", "--free", "NAME"
    )
    watts: float | None = key(
        None,
        "計算中の計算機の電力（W）。電力量の計器（RAPL）を読めないとき、これから電力量を推定する",
        "what the machine draws while it computes, in watts: energy is estimated from it where no counter (RAPL) can be read",
        limits=(0, 1e6),
    )
    audit_content: bool = key(False, "会話の内容も、暗号化して記録に残す", "keep what is said with the audit, encrypted", "--audit-content")
    audit_keep: str | None = key(
        None, "これより古い監査の記録は廃棄する。例：365d", "take away audit records that are older, such as 365d", "--audit-keep", "TIME"
    )
    keep: int = key(
        30,
        "保存を頼まれた答え（responses）を残す日数。0 なら保存しない",
        "days for which responses are stored that ask for it; 0: none is",
        "--keep",
        "DAYS",
        limits=(0, 3650),
    )
    mask: bool = key(True, "個人情報を伏せてからモデルへ渡す", "mask personal data before models read them", "--mask")
    refuse: tuple[str, ...] = key(
        (), "答えない種類の内容（例：weapons。複数可）", "kinds of content that are not answered, such as weapons", "--refuse", "KIND"
    )
    injection: Literal["ignore", "tell", "refuse"] = key(
        "tell",
        "不正な指示に似た文を、放っておく・知らせる・断る",
        "what looks like an injection is ignored, told or refused",
        "--injection",
    )
    secrets: Path | None = key(
        None,
        "答えに出してはならない文字列のファイル（名前＝値を一行に一つ）",
        "a file of what must not come out in an answer: NAME=VALUE, one a line",
        "--secrets",
        "FILE",
    )
    watch: Path | None = key(
        None,
        "動作の見守り：トレース、変化の検知、警報（YAML のファイル）",
        "watching it run: traces, drift, alerts (a YAML file)",
        "--watch",
        "FILE",
    )
    prefix_cache: Path | None = key(
        None,
        "読んだ文章の計算結果を残すフォルダ（中身から文章が分かります）",
        "where what was read is kept; it gives the texts away",
        "--prefix-cache",
        "DIR",
    )
    quantize: Literal["q8_0", "q4_0"] | None = key(None, "読み込むときに量子化する", "quantise on loading", "--quantize")
    lookup: int = key(
        0,
        "入力と出力に前に出た続きから、この数までまとめて先読みする（0 は使わない。答えは同じ）",
        "guess up to so many tokens ahead from what stood there before; 0: none; the answer is the same",
        "--lookup",
        "COUNT",
        limits=(0, 64),
    )
    threads: int | None = key(None, "計算に使うスレッド数", "computing threads", "--threads", limits=(1, 4096))

    def __post_init__(self) -> None:
        for each in fields(self):
            value, limits = getattr(self, each.name), each.metadata["key"].limits
            if limits is not None and value is not None and not limits[0] <= value <= limits[1]:
                raise ConfigError(
                    Words(f"設定「{each.name}」に {value} が指定されました。", f"The setting '{each.name}' was given {value}."),
                    found=Words(f"{limits[0]} から {limits[1]} までです。", f"It goes from {limits[0]} to {limits[1]}."),
                    todo=TODO,
                )


def read(file: Path | None, flags: Mapping[str, Any], routes: Path | None = None) -> Settings:
    """What a file says, and over it what flags say: they take the place of a value or of a list, and of a name in a mapping. `routes`: a
    file with models elsewhere and rules alone. Raises MissingError, InputError, ConfigError."""
    values = config.read_yaml(file) if file else {}
    beside = config.read_yaml(routes) if routes else {}
    for name, entries in beside.items():
        if name not in FILES or not isinstance(entries, Mapping):
            raise ConfigError(
                Words(f"{routes} の「{name}」を読もうとしました。", f"Reading '{name}' in {routes}."),
                found=Words(
                    f"あるのは {'、'.join(FILES)} で、中は名前の並びです。", f"There is {', '.join(FILES)}, each a mapping of names."
                ),
                todo=Words("経路のファイルを直してください。", "Correct the file of routes."),
            )
        values[name] = _joined(name, values.get(name) or {}, entries)
    for name, value in flags.items():
        before = values.get(name)
        values[name] = {**before, **value} if isinstance(value, Mapping) and isinstance(before, Mapping) else value
    return config.build(Settings, values, todo=TODO)


def _joined(where: str, some: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """Of two files. Raises ConfigError for a name in both."""
    twice = next((name for name in more if isinstance(some, Mapping) and name in some), None)
    if twice is not None or not isinstance(some, Mapping):
        raise ConfigError(
            Words(f"設定「{where}」を二つのファイルから読もうとしました。", f"Reading '{where}' from two files."),
            found=Words(f"「{twice}」が両方にあります。", f"'{twice}' is in both.")
            if twice
            else Words("一つが名前の並びではありません。", "One is no mapping of names."),
            todo=Words("どちらか一つにしてください。", "Leave one."),
        )
    return {**some, **more}
