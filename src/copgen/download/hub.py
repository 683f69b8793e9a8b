"""How are ranges of files read over HTTP? With every answer checked against what was asked, with patience, and not too often at once.

`requests` is used directly: fsspec's HTTP files hide ETag, Content-Range and Retry-After, which these checks live on.
"""

from __future__ import annotations

import email.utils
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from copgen import __version__
from copgen.download.remote import Absent, Changed, Folder, Hub, Remote, Unanswered
from copgen.download.traffic import Patience, Stopped, Traffic

OWNER = "Major-TOM"
CHUNK = 1 << 16
WRONG_RANGES = ("not a range", "other range", "400", "501")      # faults that also tell of a server which knows no ranges from the end
TRIES_OF_SUFFIXES = 4
REDIRECTIONS = (301, 302, 303, 307, 308)
PASSING = (408, 425, 429, 500, 502, 503, 504)    # statuses that may be another one later
EXPIRED = (400, 401, 403, 404, 410)              # what a signed address answers when its time is over
T = TypeVar("T")


def open_hub(where: str | None, *, revision: str = "main", connections: int = 4, patience: Patience | None = None,
             stop: threading.Event | None = None) -> Hub:
    """The Hugging Face hub (of HF_ENDPOINT, with the user's token if there is one), another URL with its paths, or a folder.

    A folder holds `Core-S2L2A/metadata.parquet`, `Core-S2L2A/images/...` and so on. Raises ValueError for what is none of these.
    """
    from huggingface_hub import constants, get_token

    stop, patience = stop or threading.Event(), patience or Patience()
    if where is not None and not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", where):
        return Folder(Path(where), stop)
    if where is None and constants.HF_HUB_OFFLINE:
        raise ValueError("HF_HUB_OFFLINE is set, so nothing is asked of the hub; unset it, or give --hub a folder that mirrors it")
    base = (where or constants.ENDPOINT).rstrip("/")
    token = get_token() if origin(base) == origin(constants.ENDPOINT) else None
    return Web(base, revision=revision, connections=connections, patience=patience, stop=stop, token=token)


def origin(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port; ValueError for what is no address."""
    try:
        parts = urlsplit(address)
        return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    except ValueError as error:
        raise ValueError(f"{address.split('?')[0]}: is no address ({error}); correct it") from error


class Fault(Exception):
    """Something went wrong that may go right when tried again."""

    def __init__(self, kind: str, what: str, *, after: float | None = None, tries: int | None = None) -> None:
        super().__init__(what)
        self.kind, self.after, self.tries = kind, after, tries


@dataclass(frozen=True)
class Final:
    """Where the hub sent a request for a file, by which ETags the two know it, and the commit that it is of."""

    address: str
    own: str
    linked: str
    commit: str


class Web:
    """A hub over HTTP: one session, at most so many connections, and a common pause when the server asks for one."""

    def __init__(self, base: str, *, revision: str = "main", connections: int = 4, patience: Patience | None = None,
                 stop: threading.Event | None = None, token: str | None = None) -> None:
        if urlsplit(base).scheme.lower() not in ("http", "https") or not urlsplit(base).hostname:
            raise ValueError(f"{base}: is no address that data is read from; give an http(s) URL or a folder")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*", revision):
            raise ValueError(f"revision {revision!r}: is no name of a branch, tag or commit")
        self.base, self.revision = base, revision
        self.traffic = Traffic()
        self._token, self._patience, self._stop = token, patience or Patience(), stop or threading.Event()
        self._connections = threading.BoundedSemaphore(connections)
        self._lock = threading.Lock()
        self._not_before = 0.0                   # nobody asks before this time: the server wants a pause
        self._finals: dict[str, Final] = {}
        self._knows_suffixes = True
        self._session = quiet_session(connections)
        # requests would read the whole body of a redirection, however long, to look where it leads
        self._session.get_redirect_target = lambda resp: None        # type: ignore[method-assign]

    def address(self, name: str) -> str:
        source, _, file = name.partition("/")
        return f"{self.base}/datasets/{OWNER}/{quote(source)}/resolve/{quote(self.revision, safe='')}/{quote(file)}"

    def look(self, name: str, etag: str = "") -> Remote | None:
        def attempt() -> Remote | None:
            with self._asked(name, {"Range": "bytes=0-0", **({"If-None-Match": quoted(etag)} if etag else {})}) as (answer, told, commit):
                if answer.status_code == 304 and etag:
                    return None
                size = checked_range(answer, 0, 1)
                self._take(answer, 1, bytearray(), "metadata")
                self.traffic.count_used("metadata", 1)
                return None if etag and told == etag else Remote(name, size, told, commit)

        return self._patiently(name, attempt)

    def tail(self, name: str, length: int, purpose: str) -> tuple[Remote, bytes]:
        def attempt() -> tuple[Remote, bytes]:
            with self._asked(name, {"Range": f"bytes=-{length}"}) as (answer, told, commit):
                size = checked_range(answer, -length, None)
                got = bytearray()
                self._take(answer, min(length, size), got, purpose)
                return Remote(name, size, told, commit), bytes(got)

        if self._knows_suffixes:
            try:
                found = self._patiently(name, attempt)
                self.traffic.count_used(purpose, len(found[1]))
                return found
            except Unanswered as unanswered:
                if unanswered.kind not in WRONG_RANGES:
                    raise
                self._knows_suffixes = False     # not all servers do: it takes another request to ask for the size first
        file = self.look(name)
        assert file is not None
        return file, self.read(file, max(0, file.size - length), file.size, purpose)

    def read(self, file: Remote, start: int, stop: int, purpose: str) -> bytes:
        got = bytearray()                        # a try that breaks off leaves what came: the next one goes on there

        def attempt() -> bytes:
            here = start + len(got)
            if here == stop:                     # it broke off after the last byte
                return bytes(got)
            with self._asked(file.name, {"Range": f"bytes={here}-{stop - 1}"}) as (answer, told, _):
                if answer.status_code == 416:
                    raise Changed(f"{self.address(file.name)}: has become shorter than {stop} bytes")
                size = checked_range(answer, here, stop)
                if size != file.size or (file.etag and told and told != file.etag):
                    raise Changed(f"{self.address(file.name)}: was changed on the server while it was read (ETag {file.etag} with "
                                  f"{file.size} bytes, now {told} with {size})")
                self._take(answer, stop - here, got, purpose)
                return bytes(got)

        data = self._patiently(file.name, attempt)
        self.traffic.count_used(purpose, len(data))
        return data

    def close(self) -> None:
        self._session.close()

    def _patiently(self, name: str, attempt: Callable[[], T]) -> T:
        tried = 0
        while True:
            tried += 1
            self._wait_until(self._not_before)
            try:
                with self._connections:
                    return attempt()
            except Fault as fault:
                self.traffic.count_retry(fault.kind)
                if tried >= (fault.tries or self._patience.tries):
                    raise Unanswered(f"{self.address(name)}: {fault}, {tried} times; run the same command again later, it goes on where "
                                     f"this one ended", fault.kind) from fault
                seconds = self._patience.wait(tried, fault.after)
                if fault.kind == "429" or fault.after is not None:       # it speaks to all
                    with self._lock:
                        self._not_before = max(self._not_before, time.monotonic() + seconds)
                self._wait_until(time.monotonic() + seconds)

    def _wait_until(self, moment: float) -> None:
        if self._stop.wait(max(0.0, moment - time.monotonic())):
            raise Stopped

    @contextmanager
    def _asked(self, name: str, headers: Mapping[str, str]) -> Iterator[tuple[requests.Response, str, str]]:
        """An answer with a status that isn't an error, the file's ETag and its commit."""
        address, final = self.address(name), self._finals.get(name)
        answer = self._send(final.address if final else address, headers)
        if final and (answer.status_code in EXPIRED or (answer.ok and etag_of(answer) != final.own)):
            answer.close()
            self._finals.pop(name, None)
            answer, final = self._send(address, headers), None
        try:
            linked, commit = (final.linked, final.commit) if final else ("", answer.headers.get("X-Repo-Commit", ""))
            if not final and answer.status_code in REDIRECTIONS:
                answer, linked = self._follow(answer, headers)
                if answer.ok:
                    self._finals[name] = Final(str(answer.url), etag_of(answer), linked, commit)
            self._refuse_errors(answer, address)
            yield answer, linked or etag_of(answer), commit
        finally:
            answer.close()

    def _send(self, address: str, headers: Mapping[str, str]) -> requests.Response:
        if self._stop.is_set():
            raise Stopped
        entitled = self._token and origin(address) == origin(self.base)
        all_headers = {**headers, **({"Authorization": f"Bearer {self._token}"} if entitled else {})}
        self.traffic.count(requests=1)
        try:
            return self._session.get(address, headers=all_headers, stream=True, allow_redirects=False,
                                     timeout=(self._patience.connect, self._patience.silence))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Fault("connection", f"no answer came ({reason(error)})") from error

    def _follow(self, answer: requests.Response, headers: Mapping[str, str]) -> tuple[requests.Response, str]:
        """Where a redirection leads in the end, and the ETag that is told on the way; the token goes to the hub's own addresses only."""
        linked = ""
        for _ in range(5):
            linked = bare(answer.headers.get("X-Linked-ETag", "")) or linked
            here, there = str(answer.url).split("?")[0], answer.headers.get("Location", "")
            try:
                where = urljoin(str(answer.url), there)
                scheme = origin(where)[0]
            except ValueError as error:
                raise ValueError(f"{here}: sends on to {there.split('?')[0]!r:.200}, which is no address; see --hub") from error
            if scheme not in ("http", "https") or (here.startswith("https:") and scheme == "http"):
                there = where.split("?")[0]      # signatures are nobody's business
                raise ValueError(f"{here}: sends on to {there}, which is not read from: only http(s), and nothing less safe")
            answer.close()
            answer = self._send(where, headers)
            if answer.status_code not in REDIRECTIONS:
                return answer, linked
        answer.close()
        raise Fault("redirections", "was sent on again and again")

    def _refuse_errors(self, answer: requests.Response, address: str) -> None:
        status = answer.status_code
        sent_on = origin(str(answer.url)) != origin(self.base)
        if status in PASSING:
            raise Fault(str(status), f"the server answered {status}", after=retry_after(answer) if status in (429, 503) else None)
        if status == 403 or (sent_on and status in EXPIRED):
            raise Fault(str(status), f"the server answered {status}, which it does to those who may not read the file", tries=3)
        if status in (401, 404, 410):
            if status == 401:
                raise ValueError(f"{address}: wants a token; log in with `hf auth login`, or set HF_TOKEN")
            raise Absent(f"{address}: is not there; see --hub and --revision")
        if status in (400, 501):
            raise Fault(str(status), f"the server answered {status} to a range", tries=3)
        if status not in (200, 206, 304, 416):
            raise ValueError(f"{address}: the server answered {status}, which is no answer to reading a file")

    def _take(self, answer: requests.Response, length: int, got: bytearray, purpose: str) -> None:
        """Add the answer's `length` bytes to `got`; what came stays there if the connection breaks."""
        received, began = 0, time.monotonic()
        try:
            while chunk := answer.raw.read1(CHUNK, decode_content=False):          # what is there, however little: a trickle is noticed
                if self._stop.is_set():
                    raise Stopped
                self.traffic.count_received(purpose, len(chunk))
                received += len(chunk)
                got += chunk
                if received > length:
                    del got[-received:]
                    raise Fault("other length", f"the server sent more than the {length} bytes of the range")
                seconds = time.monotonic() - began
                if seconds > self._patience.silence and received < self._patience.least * seconds and received < length:
                    raise Fault("trickle", f"the server sent {received} of {length} bytes in {seconds:.0f} seconds")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Fault("broken off", f"the connection broke off after {received} of {length} bytes ({reason(error)})") from error
        if received != length:
            raise Fault("broken off", f"the server sent {received} of {length} bytes")


def quiet_session(connections: int) -> requests.Session:
    """A session that keeps connections, and neither cookies nor passwords of ~/.netrc."""
    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": f"copgen/{__version__}"})
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.auth = lambda request: request
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=connections, max_retries=0))
    return session


def checked_range(answer: requests.Response, start: int, stop: int | None) -> int:
    """The file's size, of an answer that is exactly what was asked: [start, stop), or the last -start bytes if stop is None."""
    said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
    if answer.status_code != 206 or not said:
        raise Fault(WRONG_RANGES[0], f"the server answered {answer.status_code} and not with the range that was asked for (a mirror must "
                                     f"know ranges)", tries=TRIES_OF_SUFFIXES if stop is None else None)
    first, last, size = map(int, said.groups())
    asked = (max(0, size + start), size) if stop is None else (start, stop)
    if (first, last + 1) != asked:
        raise Fault(WRONG_RANGES[1], f"the server sent bytes {first}-{last} and not {asked[0]}-{asked[1] - 1}, which were asked for",
                    tries=TRIES_OF_SUFFIXES if stop is None else None)
    length = answer.headers.get("Content-Length", str(asked[1] - asked[0]))
    if length != str(asked[1] - asked[0]) or answer.headers.get("Content-Encoding", "identity") != "identity":
        raise Fault("other length", f"the server sent {length} bytes for a range of {asked[1] - asked[0]}")
    return size


def retry_after(answer: requests.Response) -> float | None:
    """Seconds to wait, of a number or a date; None where the server says neither."""
    said = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(?:\.\d*)?", said):
        return float(said)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def etag_of(answer: requests.Response) -> str:
    return bare(answer.headers.get("ETag", answer.headers.get("Last-Modified", "")))


def bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def quoted(etag: str) -> str:
    return f'"{etag}"'


def reason(error: BaseException) -> str:
    """The innermost cause, which is the one that says something."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error) or type(error).__name__
