"""What does a hub of parquet files answer, on good days and on bad ones? A server of a folder, in threads of this process, with faults.

`<base>/datasets/<owner>/<source>/resolve/<revision>/<file>` is `<folder>/<source>/<file>`, `<base>/files/<file>` is `<folder>/<file>`. It
knows ranges (also from the end), HEAD, ETag with If-None-Match, If-Match and If-Range, a token, and a redirection to a second server, the
content network, that wants no token. Whether a request goes wrong depends on the seed, the request and how often it was made before, not
on the order in which threads ask: so a run with faults can be repeated.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

HUB = re.compile(r"/datasets/[^/]+/(?P<source>[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
OTHER = re.compile(r"/files/(?P<file>.+)")
CONTENT = re.compile(r"/content/(?P<file>.+)")
COMMIT = "4f1c0ffee0000000000000000000000000000001"
STATUS_FAULTS = {"403": 403, "429": 429, "500": 500, "503": 503}
BODY_FAULTS = ("truncated", "short", "shifted", "long", "whole", "flipped", "page", "slow", "reset_midway")
KINDS = ("reset", *STATUS_FAULTS, *BODY_FAULTS)


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and when.

    The kinds: `reset` (the connection, before an answer) and `reset_midway`; a status `403`, `429` (with Retry-After), `500`, `503`;
    `truncated` (a body shorter than its Content-Length); `short` (fewer bytes than the range asked, said so); `shifted` (other bytes than
    the range asked, said so); `long` (more bytes than asked, a Content-Length to match); `whole` (200 and the whole file, not 206);
    `flipped` (a bit in the body is wrong); `page` (200 and an HTML page); `slow` (a pause of `pause` seconds in the middle of the body).
    """

    rates: Mapping[str, float] = field(default_factory=dict)         # kind -> probability of a request
    seed: int = 0
    script: Mapping[int, str] = field(default_factory=dict)          # the number of a request of `only`'s, from 1 -> kind
    only: str = ""                                                   # a pattern that the request's path must have
    at_most: int = 10**9                                             # faults in all
    again: int = 2                                                   # and by chance of one path and end of a range: trying again ends
    retry_after: str = "0"
    pause: float = 0.05
    changes: Mapping[str, tuple[int, Path]] = field(default_factory=dict)   # end of a path -> after so many requests of it, another file


@dataclass(frozen=True)
class Request:
    """One request as it was answered."""

    method: str
    path: str
    range: str
    status: int                                                      # 0: none, the connection was reset
    sent: int                                                        # bytes of the body
    fault: str
    headers: Mapping[str, str]
    at_content: bool                                                 # whether the content network answered


class Hub:
    """A running server: where it is, and what it was asked."""

    def __init__(self, folder: Path, faults: Faults, token: str | None, redirects: bool) -> None:
        unknown = {*faults.rates, *faults.script.values()} - set(KINDS)
        if unknown:
            raise ValueError(f"faults {sorted(unknown)}: are not known; there are {', '.join(KINDS)}")
        self.folder, self.faults, self.token, self.redirects = folder.resolve(), faults, token, redirects
        self.log: list[Request] = []
        self.url = self.content_url = ""
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._etags: dict[tuple[Path, int, int], str] = {}
        self._matched = 0

    @property
    def requests(self) -> int:
        return len(self.log)

    @property
    def bytes(self) -> int:
        """Bytes of all bodies sent."""
        return sum(one.sent for one in self.log)

    @property
    def by_path(self) -> dict[str, tuple[int, int]]:
        """Requests and bytes of each path."""
        found: dict[str, tuple[int, int]] = {}
        for one in list(self.log):
            count, sent = found.get(one.path, (0, 0))
            found[one.path] = count + 1, sent + one.sent
        return found

    @property
    def injected(self) -> Counter[str]:
        """How often each fault happened."""
        return Counter(one.fault for one in list(self.log) if one.fault)

    def clear(self) -> None:
        """Forget what was asked so far."""
        with self._lock:
            self.log.clear()

    def note(self, one: Request) -> None:
        with self._lock:
            self.log.append(one)

    def fault_of(self, path: str, span: str) -> str:
        """The fault of this request, by the script first, then by chance; '' for none."""
        with self._lock:
            if not re.search(self.faults.only, path):
                return ""
            self._matched += 1
            request = f"{path} {span}"
            self._asked[request] += 1
            kind = self.faults.script.get(self._matched) or self._by_chance(request)
            if not kind or sum(self._failed.values()) >= self.faults.at_most:
                return ""
            self._failed[goal_of(request)] += 1
            return kind

    def _by_chance(self, request: str) -> str:
        if self._failed[goal_of(request)] >= self.faults.again:
            return ""
        digest = hashlib.sha256(f"{self.faults.seed} {request} {self._asked[request]}".encode()).digest()
        chance = int.from_bytes(digest[:8], "big") / 2**64
        for kind, rate in sorted(self.faults.rates.items()):
            if chance < rate:
                return kind
            chance -= rate
        return ""

    def file_at(self, path: str, count: bool) -> Path | None:
        """The file that a path means, or what it was changed to."""
        match = HUB.fullmatch(path) or OTHER.fullmatch(path) or CONTENT.fullmatch(path)
        if not match:
            return None
        file = (self.folder / match.groupdict().get("source", "") / match["file"]).resolve()
        if not file.is_relative_to(self.folder) or not file.is_file():
            return None
        for end, (after, other) in self.faults.changes.items():
            if path.endswith(end):
                with self._lock:
                    self._asked[f"changing {end}"] += count
                    if self._asked[f"changing {end}"] > after:
                        return Path(other)
        return file

    def etag(self, file: Path) -> str:
        stat = file.stat()
        key = file, stat.st_mtime_ns, stat.st_size
        if key not in self._etags:
            with file.open("rb") as content:
                self._etags[key] = f'"{hashlib.file_digest(content, "sha256").hexdigest()}"'
        return self._etags[key]


@contextmanager
def serve(folder: Path, faults: Faults | None = None, *, token: str | None = None, redirects: bool = False) -> Iterator[Hub]:
    """Serve a folder until the block ends: `hub.url` is the base, `hub.log` and its sums say what was asked.

    With `token`, requests without `Authorization: Bearer <token>` are answered by 401; with `redirects`, files of `images/` lie on a
    second server, to whose address a request is sent by 302.
    """
    hub = Hub(folder, faults or Faults(), token, redirects)
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler(hub, at_content)) for at_content in (False, True)]
    hub.url, hub.content_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.socket.close()                # not server_close: it would wait for connections that clients keep open


def handler(hub: Hub, at_content: bool) -> type[BaseHTTPRequestHandler]:
    return type("BoundAnswer", (Answer,), {"hub": hub, "at_content": at_content})


class Answer(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    at_content: bool
    protocol_version = "HTTP/1.1"                                    # connections are kept
    timeout = 20
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path, span = unquote(urlsplit(self.path).path), self.headers.get("Range", "")
        if not self.at_content and self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.send_all(401, b"a token is needed")
        away = self.hub.redirects and not self.at_content and "/images/" in path and HUB.fullmatch(path)
        fault = "" if away else self.hub.fault_of(path, span)
        if fault == "reset":
            return self.reset(path, span)
        if fault in STATUS_FAULTS:
            after = {"Retry-After": self.hub.faults.retry_after} if fault in ("429", "503") else {}
            return self.send_all(STATUS_FAULTS[fault], b"come again later", after, fault=fault)
        file = self.hub.file_at(path, count=self.command == "GET")
        if file is None:
            return self.send_all(404, b"Entry not found")
        headers = {"ETag": self.hub.etag(file), "Accept-Ranges": "bytes"}
        if HUB.fullmatch(path):
            headers["X-Repo-Commit"] = COMMIT
        if away:
            where = f"{self.hub.content_url}/content/{quote(str(file.relative_to(self.hub.folder)))}?signature=1"
            headers |= {"Location": where, "X-Linked-Size": str(file.stat().st_size), "X-Linked-ETag": headers["ETag"]}
            return self.send_all(302, b"", headers)
        return self.send_file(file, span, headers, fault)

    def send_file(self, file: Path, span: str, headers: dict[str, str], fault: str) -> None:
        size, etag = file.stat().st_size, headers["ETag"]
        if self.headers.get("If-None-Match") == etag:
            return self.send_all(304, b"", headers)
        if self.headers.get("If-Match", etag) not in (etag, "*"):
            return self.send_all(412, b"", headers)
        if self.headers.get("If-Range", etag) != etag or fault == "whole":
            span = ""
        if fault == "page":
            return self.send_all(200, b"<!DOCTYPE html><title>Something is not right</title>", {"Content-Type": "text/html"}, fault=fault)
        start, stop = byte_range(span, size)
        if start >= stop and span:
            return self.send_all(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
        if fault == "short":
            stop = start + max(1, (stop - start) // 2)
        elif fault == "long":
            stop = min(stop + 7, size)
        elif fault == "shifted":
            start, stop = (start - 1, stop - 1) if start else (start + 1, min(stop + 1, size))
        with file.open("rb") as content:
            content.seek(start)
            body = content.read(stop - start)
        if span:
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        return self.send_all(206 if span else 200, body, headers, fault=fault)

    def send_all(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, fault: str = "") -> None:
        if fault == "flipped" and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]
        kept = body[:len(body) // 2] if fault in ("truncated", "reset_midway") else body
        sent = 0 if self.command == "HEAD" or status == 304 else len(kept)
        self.note(status, sent, fault)           # before the answer, so that who has it finds it noted
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.close_connection = self.close_connection or fault in ("truncated", "reset_midway")
        if not sent:
            return
        if fault == "slow":
            self.wfile.write(kept[:1])
            self.wfile.flush()
            time.sleep(self.hub.faults.pause)
            kept = kept[1:]
        self.wfile.write(kept)
        if fault == "reset_midway":
            self.hang_up()

    def reset(self, path: str, span: str) -> None:
        self.note(0, 0, "reset")
        self.hang_up()

    def hang_up(self) -> None:
        """End the connection by a reset, not by its orderly end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def note(self, status: int, sent: int, fault: str) -> None:
        self.hub.note(Request(self.command, unquote(urlsplit(self.path).path), self.headers.get("Range", ""), status, sent, fault,
                              dict(self.headers), self.at_content))

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError):    # the client went away, or `hang_up` closed the file under it
            self.close_connection = True


def goal_of(request: str) -> str:
    """A request without the first byte of its range: who goes on where it broke off asks for the same."""
    return re.sub(r"bytes=\d+-", "bytes=...", request)


def byte_range(span: str, size: int) -> tuple[int, int]:
    """`bytes=a-b`, `bytes=a-` or `bytes=-n` -> start and stop; the whole file for none, or for several in one."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", span)
    if not match or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
