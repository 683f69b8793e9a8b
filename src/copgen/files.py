"""How files come to be: whole or not at all, alone or together; and what tells one file from another."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np


def cache_folder() -> Path:
    """Where converted models and compiled kernels are kept: COPGEN_CACHE, else ~/.cache/copgen."""
    return Path(os.environ.get("COPGEN_CACHE") or Path.home() / ".cache" / "copgen")


def sha256(path: Path) -> str:
    """The hash of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=plain) + "\n").encode()


def plain(value: Any) -> Any:
    """What JSON lacks: paths, numpy's numbers, arrays and dates."""
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value] if value.dtype.kind == "M" else value.tolist()
    return value.item() if isinstance(value, np.generic) else str(value)


def write_json(path: Path, content: Any, *, overwrite: bool = True) -> Path:
    """Write `content` as indented JSON, whole or not at all; ValueError as `write_whole`."""
    return write_whole(path, json_bytes(content), overwrite=overwrite)


def write_whole(path: Path, data: bytes, *, overwrite: bool = True) -> Path:
    """Write one file, whole or not at all; ValueError if it can't be written, or exists and `overwrite` is False."""
    return write_all({Path(path): data}, overwrite=overwrite)[0]


def write_all(files: Mapping[Path, bytes], *, overwrite: bool = False) -> list[Path]:
    """Write files together: all go to hidden names first and get their own only when the last is safely on the disk.

    What fails before that, such as a full disk, leaves everything as it was. Where getting the own names fails half-way, the files that
    are new are removed again, but those that `overwrite` had replaced by then hold the new content: the old is gone. Raises ValueError
    for a file that exists (unless `overwrite`) or can't be written, naming what was replaced.
    """
    for path in files:
        check_target(path.parent, [path.name], overwrite=overwrite)
    parts: dict[Path, Path] = {}
    made: list[Path] = []
    new: list[Path] = []
    replaced: list[Path] = []
    path = next(iter(files), Path())
    try:
        for path, data in files.items():
            made += make_folder(path.parent)
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            parts[part] = path
            write_bytes(part, data)
        for part, path in parts.items():
            there = os.path.lexists(path)
            part.replace(path)
            (replaced if there else new).append(path)
    except BaseException as error:
        withdraw([*parts, *new], made)
        if isinstance(error, OSError):
            raise ValueError(unwritten(path, error, replaced)) from error
        raise
    return list(files)


@contextmanager
def written(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A hidden name for a file that is too large for memory: what is written there gets its own name where the block ends well.

    Nothing is left of it where it does not; ValueError as `write_whole`.
    """
    check_target(path.parent, [path.name], overwrite=overwrite)
    part, made = path.with_name(f".{path.name}.{os.getpid()}.part"), make_folder(path.parent)
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        withdraw([part], made)
        if isinstance(error, OSError):
            raise ValueError(unwritten(path, error)) from error
        raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While it is entered, the folder is there and nobody else holds it; ValueError where somebody does. A process that ends lets go."""
    try:
        import fcntl
    except ImportError:                          # not a POSIX system: nobody can tell there
        yield
        return
    made = make_folder(folder)
    place = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):                  # a file system without locks: as little
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"{folder}: another run writes to it; wait until it has ended, or choose another folder") from error
        yield
    finally:
        os.close(place)
        withdraw([], made)


def write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())                  # a full disk or quota may show only here


def withdraw(files: Iterable[Path], made: Iterable[Path]) -> None:
    """Remove files, and the folders that were made for them if nothing else is in there."""
    for file in files:
        file.unlink(missing_ok=True)
    for folder in sorted(made, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):                  # it holds something: leave it
            folder.rmdir()


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that were not there, innermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def check_target(folder: Path, names: Iterable[str], *, overwrite: bool = False) -> None:
    """Refuse early what could not be written later; makes nothing.

    Raises ValueError for a folder that cannot be made or written and, unless `overwrite`, for files that exist.
    """
    folder = Path(folder)
    ground = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), Path())
    if not ground.is_dir():
        raise ValueError(f"{ground}: is not a folder, so nothing can be written under it; choose another folder")
    if not os.access(ground, os.W_OK | os.X_OK):
        raise ValueError(f"{ground}: this folder can't be written to; choose another one or change its permissions")
    try:
        with tempfile.TemporaryFile(dir=ground):
            pass                                 # who is root may write anywhere, but not everywhere can be written
    except OSError as error:
        raise ValueError(unwritten(ground, error)) from error
    there = [name for name in names if os.path.lexists(folder / name)]
    blocked = [name for name in there if (folder / name).is_dir()]
    if blocked:
        raise ValueError(f"{folder / blocked[0]}: a folder has the name of a file to be written; choose another folder to write to")
    if there and not overwrite:
        more = f" (and {len(there) - 1} more files)" if len(there) > 1 else ""
        raise ValueError(f"{folder / there[0]}{more}: exists already; choose another folder, or overwrite it on purpose (--overwrite)")


def unwritten(path: Path, error: OSError, replaced: Sequence[Path] = ()) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    way_out = "free some space or choose another disk" if full else "choose another folder or change its permissions"
    more = f" (and {len(replaced) - 1} more)" if len(replaced) > 1 else ""
    gone = f", but {replaced[0]}{more} was replaced before that and its old content is gone" if replaced else ""
    return f"{path}: could not be written ({error.strerror or error}) and nothing of it is left{gone}; {way_out}"
