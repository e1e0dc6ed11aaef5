"""HTTP to one hub: redirects, the token, and what is worth another try.

In: a path below the hub's address, and from which byte on. Out: an open answer, or an error of ours; `Again` for what may pass
by itself, and `Tries`, which waits. The token goes to the hub's own origin and nowhere else. It knows no files and no hashes.
"""

from __future__ import annotations

import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType

import httpx2

from tsuzuri import __version__
from tsuzuri.errors import ConfigError, MissingError, RemoteError, TsuzuriError, Words

HUB = "https://huggingface.co"
MAX_HOPS = 8
TIMEOUT = httpx2.Timeout(60, connect=15)  # seconds without a byte, seconds to connect
PASSING = (408, 429, 500, 502, 503, 504)
LOCAL = ("localhost", "127.0.0.1", "::1")
TOLD = ("x-repo-commit", "x-linked-etag", "x-linked-size")
LATER = Words("時間をおいて同じコマンドを実行してください。続きから始まります。", "Run the same command later: it goes on from there.")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often one thing is tried without progress, and the wait between: doubled each time, up to a limit, with jitter."""

    tries: int = 6
    first: float = 1.0  # seconds
    most: float = 30.0
    obeyed: float = 600.0  # the longest Retry-After that is waited for


class Again(Exception):
    """Worth another try, after so many seconds if the server says so. It never leaves this room."""

    def __init__(self, why: Words, after: float | None = None) -> None:
        super().__init__(why)
        self.why, self.after = why, after


class Tries:
    """One thing that may fail: counts, tells, waits."""

    def __init__(self, patience: Patience, asked: Words, notice: Callable[[Words], None]) -> None:
        self._patience, self._asked, self._notice = patience, asked, notice
        self._failed = 0

    def again(self, error: Again, *, moved: bool = False) -> None:
        """Waits. Raises RemoteError when it was tried often enough. After progress (`moved`) counting starts anew."""
        self._failed = 1 if moved else self._failed + 1
        of = self._patience.tries
        if self._failed >= of:
            found = Words(f"{error.why.ja}{of} 回試しました。", f"{error.why.en} It was tried {of} times.")
            raise RemoteError(self._asked, found=found, todo=LATER) from error
        if error.after is not None and error.after > self._patience.obeyed:
            minutes = round(error.after / 60)
            found = Words(f"サーバーは {minutes} 分待つよう求めています。", f"The server asks to wait for {minutes} minutes.")
            raise RemoteError(self._asked, found=found, todo=LATER) from error
        longest = min(self._patience.first * 2 ** (self._failed - 1), self._patience.most)
        wait = secrets.SystemRandom().uniform(longest / 2, longest) if error.after is None else error.after
        self._notice(
            Words(
                f"{error.why.ja}{wait:.0f} 秒後にもう一度試します（{self._failed + 1}/{of}）。",
                f"{error.why.en} Trying again in {wait:.0f} s ({self._failed + 1}/{of}).",
            )
        )
        time.sleep(wait)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int  # 200, 206 or 416
    headers: Mapping[str, str]  # of the last one, whoever sent it
    told: Sequence[tuple[str, str]]  # what the hub itself said on the way: those of TOLD, and at the end its ETag
    chunks: Iterator[bytes]  # as they are on the wire


class Wire:
    """One hub. Raises ConfigError for an address that cannot be one, and for a token that would travel in the clear."""

    def __init__(self, address: str, token: str | None, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.address = _address(address)
        self._origin = httpx2.URL(self.address).origin
        self._token = _token(token, self.address)
        self._client = httpx2.Client(
            headers={"User-Agent": f"tsuzuri/{__version__}", "Accept-Encoding": "identity"},  # sizes and hashes are of plain bytes
            timeout=TIMEOUT,
            follow_redirects=False,  # ours to follow: where the token goes is decided here
        )

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    @contextmanager
    def get(self, path: str, asked: Words, *, start: int = 0) -> Iterator[Answer]:
        """GET a path below the address, from byte `start` on. What fails inside the block is told in the same way.

        Raises Again, RemoteError (refused), MissingError (not there).
        """
        url = httpx2.URL(self.address + path)
        told: list[tuple[str, str]] = []
        try:
            for _ in range(MAX_HOPS):
                with closing(self._send(url, start)) as response:
                    own = url.origin == self._origin
                    told += [(name, response.headers[name]) for name in TOLD if own and name in response.headers]
                    if response.has_redirect_location:
                        url = _next(url, response.headers["location"], asked)
                        continue
                    self._check(response, own, start, asked)
                    if own and "etag" in response.headers:
                        told.append(("x-linked-etag", response.headers["etag"]))
                    yield Answer(response.status_code, response.headers, told, response.iter_raw())
                    return
        except httpx2.TransportError as error:
            raise _passing(error, asked) from error
        raise _refusal(asked, Words("転送が終わりません。", "Redirects do not end."))

    def _send(self, url: httpx2.URL, start: int) -> httpx2.Response:
        headers = {"Range": f"bytes={start}-"} if start else {}
        if self._token and url.origin == self._origin:
            headers["Authorization"] = f"Bearer {self._token}"
        return self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)

    def _check(self, response: httpx2.Response, own: bool, start: int, asked: Words) -> None:
        """Raises what the status means. Another host's refusal may pass: its address was made for a short time."""
        status = response.status_code
        if status == 200 or (start and status in (206, 416)):
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _refusal(asked, Words("圧縮して送られてきました。", "The answer is compressed, though plain bytes were asked for."))
        elif status in PASSING or not own:
            busy = status == 429
            ja, en = ("混み合っています", "It is busy") if busy else ("サーバーの具合が悪いようです", "The server is not well")
            raise Again(Words(f"{ja}（{status}）。", f"{en} ({status})."), _after(response.headers.get("retry-after")))
        else:
            raise _refused(status, response.headers.get("x-error-code", ""), self._token is not None, asked)


def _address(text: str) -> str:
    """Without a slash at the end."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise ConfigError(
            Words("ハブの接続先を決めようとしました。", "Finding the hub."),
            found=Words("接続先が、https://… の形のアドレスではありません。", "The address is not of the form https://…"),
            todo=Words("--endpoint か HF_ENDPOINT を直してください。", "Correct --endpoint or HF_ENDPOINT."),
        )
    return str(url).rstrip("/")


def _token(token: str | None, address: str) -> str | None:
    """None for an empty one. What is wrong with it is said without showing it."""
    token = (token or "").strip()
    if not token:
        return None
    url, asked = httpx2.URL(address), Words("HF_TOKEN を使おうとしました。", "Using HF_TOKEN.")
    if re.fullmatch("[!-~]{1,1024}", token) is None:
        found = Words("トークンにない文字が入っています。", "It holds characters that no token has.")
        raise ConfigError(asked, found=found, todo=Words("HF_TOKEN を設定し直してください。", "Set HF_TOKEN again."))
    if url.scheme == "http" and url.host not in LOCAL:
        raise ConfigError(
            asked,
            found=Words("接続先が http なので、トークンが平文で流れます。", "The address is http: the token would travel in the clear."),
            todo=Words("https の接続先にするか、HF_TOKEN を空にして実行してください。", "Use https, or run with an empty HF_TOKEN."),
        )
    return token


def _next(url: httpx2.URL, location: str, asked: Words) -> httpx2.URL:
    """Where a redirect leads: http or https, and never from https to http."""
    try:
        target = url.join(location)
    except httpx2.InvalidURL:
        target = httpx2.URL("")
    if target.scheme not in ("http", "https") or not target.host or (url.scheme == "https" and target.scheme == "http"):
        raise _refusal(asked, Words("転送先が安全なアドレスではありません。", "It redirects to an address that is not safe."))
    return target


def _after(value: str | None) -> float | None:
    """Retry-After, in seconds or as a date (RFC 9110, 10.2.3); None where it is neither."""
    if value is None or re.fullmatch("[0-9]{1,9}", value):
        return None if value is None else float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return None


def _passing(error: httpx2.TransportError, asked: Words) -> Exception:
    """A connection that failed: worth another try, unless the other side cannot prove who it is."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            found = Words("サーバーの証明書を確かめられません。", "The server's certificate cannot be verified.")
            todo = Words("接続先と時計、SSL_CERT_FILE を確かめてください。", "Check the address, the clock and SSL_CERT_FILE.")
            return RemoteError(asked, found=found, todo=todo)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.TimeoutException):
        return Again(Words("応答がありません。", "There is no answer."))
    if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
        return Again(Words(f"つながりません（{error}）。", f"It cannot be reached ({error})."))
    return Again(Words("途中で切れました。", "The connection broke off."))


def _refused(status: int, code: str, token: bool, asked: Words) -> TsuzuriError:
    """What the hub's refusal means, by status and by the code it adds."""
    if code == "GatedRepo" or status == 403:
        found = Words("利用には持ち主の許可が要ります。", "Its owner's permission is needed.")
        page = Words("リポジトリのページで条件に同意し、", "Accept the conditions on the repository's page and ")
        todo = Words(f"{page.ja}自分のトークンを HF_TOKEN に入れてください。", f"{page.en}put your own token into HF_TOKEN.")
        return RemoteError(asked, found=found, todo=todo)
    if status == 401 and token:
        found = Words("HF_TOKEN のトークンが受け付けられません。", "The token in HF_TOKEN is not accepted.")
        return RemoteError(asked, found=found, todo=Words("HF_TOKEN を設定し直すか、空にしてください。", "Set HF_TOKEN again or empty it."))
    if status in (401, 404):
        if code == "RevisionNotFound":
            found = Words("その版（ブランチ、タグ、コミット）はありません。", "There is no such branch, tag or commit.")
        elif code == "EntryNotFound":
            found = Words("一覧にあるのに、そのファイルがありません。", "The file is in the list and is not there.")
        else:
            found = Words("リポジトリがないか、非公開です。", "There is no such repository, or it is private.")
        todo = Words(
            "名前と版を確かめてください。非公開なら HF_TOKEN が要ります。", "Check name and revision; a private one needs HF_TOKEN."
        )
        return MissingError(asked, found=found, todo=todo)
    return _refusal(asked, Words(f"サーバーの答えは {status} でした。", f"The server answered {status}."))


def _refusal(asked: Words, found: Words) -> RemoteError:
    return RemoteError(asked, found=found, todo=Words("接続先（--endpoint）を確かめてください。", "Check the address (--endpoint)."))
