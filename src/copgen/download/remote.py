"""What is a file of a hub to those who read it? Ranges of bytes that are the file's, or an error; here from a mirror on disk."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from copgen.download.traffic import Stopped, Traffic


@dataclass(frozen=True)
class Remote:
    """A file as an answer described it."""

    name: str                                    # `Core-S2L2A/images/part_00001.parquet`
    size: int
    etag: str                                    # "" where the server tells none
    commit: str = ""                             # of the repository, where the server tells it


class Changed(ValueError):
    """A file is no longer the one that was looked at before."""


class Hub(Protocol):
    """Where Major TOM's repositories lie."""

    traffic: Traffic
    base: str

    def address(self, name: str) -> str:
        """Where a file is, for messages and caches."""

    def look(self, name: str, etag: str = "") -> Remote | None:
        """The file as it is now; None if it still has this ETag."""

    def tail(self, name: str, length: int, purpose: str) -> tuple[Remote, bytes]:
        """The last bytes of a file that was not seen before."""

    def read(self, file: Remote, start: int, stop: int, purpose: str) -> bytes:
        """The bytes [start, stop) of a file; `Changed` if it is another one by now."""

    def close(self) -> None:
        """Give back what is held."""


class Absent(ValueError):
    """A file that is not there."""


class Unanswered(ValueError):
    """A server that did not answer as asked, however often it was tried; `kind` is what it did last."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Folder:
    """A mirror on disk, read as the hub is."""

    def __init__(self, folder: Path, stop: threading.Event | None = None) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: is no folder; --hub takes an http(s) URL, or a folder that holds Core-S2L2A/metadata.parquet "
                             f"and so on")
        self.base = str(folder.resolve())
        self.traffic = Traffic()
        self._stop = stop or threading.Event()

    def address(self, name: str) -> str:
        return str(Path(self.base) / name)

    def look(self, name: str, etag: str = "") -> Remote | None:
        path = Path(self.address(name))
        if not path.is_file():
            raise Absent(f"{path}: is not there; --hub takes a folder that holds Core-S2L2A/metadata.parquet and so on")
        stat = path.stat()
        found = Remote(name, stat.st_size, f"{stat.st_mtime_ns}-{stat.st_size}")
        return None if etag and found.etag == etag else found

    def tail(self, name: str, length: int, purpose: str) -> tuple[Remote, bytes]:
        found = self.look(name)
        assert found is not None
        return found, self.read(found, max(0, found.size - length), found.size, purpose)

    def read(self, file: Remote, start: int, stop: int, purpose: str) -> bytes:
        if self._stop.is_set():
            raise Stopped
        if self.look(file.name, file.etag) is not None:
            raise Changed(f"{self.address(file.name)}: was changed while it was read")
        with Path(self.address(file.name)).open("rb") as content:
            content.seek(start)
            data = content.read(stop - start)
        if len(data) != stop - start:
            raise Changed(f"{self.address(file.name)}: has become shorter than {stop} bytes")
        self.traffic.count(requests=1)
        self.traffic.count_received(purpose, len(data))
        self.traffic.count_used(purpose, len(data))
        return data

    def close(self) -> None:
        """Nothing is held."""
