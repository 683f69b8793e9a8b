"""What does a text such as `worlds:64,resampling=all` ask for, and what tells one set of files from another?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from copgen.files import sha256

HASHED = 2 * 2**30                               # bytes up to which files are told apart by their contents
OPTION = re.compile(r"(.+),\s*([A-Za-z][\w-]*)=([^,]*)")


def options_of(text: str, known: Iterable[str], what: str) -> tuple[str, dict[str, str]]:
    """`PATH_OR_NAME[,key=value...]` -> what stands before the options, and these. A path that is there may hold commas itself.

    Raises ValueError for a key that is not known or stands twice, and for one without a value.
    """
    known, rest, options = tuple(known), text.strip(), dict[str, str]()
    while not is_there(rest) and (found := OPTION.fullmatch(rest)):
        rest, key, value = found[1].strip(), found[2].lower(), found[3].strip()
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ValueError(f"{what} {text!r}: no option is called {key!r}; {takes}")
        if key in options or not value:
            raise ValueError(f"{what} {text!r}: {key} is {'given twice' if key in options else 'empty'}; write {key}=VALUE once")
        options[key] = value
    return rest, options


def is_there(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except OSError:                              # such as a name that is too long for one
        return False


def folder_in(text: str, what: str, holds: str) -> Path:
    """The folder that a text names; ValueError where it is none."""
    folder = Path(text).expanduser()
    if not text or not folder.is_dir():
        raise ValueError(f"{what} {text!r}: there is no such folder; name the one that holds {holds}")
    return folder


def one_of(value: str, choices: Iterable[str], what: str) -> str:
    """The value itself; ValueError where it is none of the choices."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{what}={value}: choose {', '.join(choices[:-1])} or {choices[-1]}")
    return value


def whole_number(text: str, what: str, least: int = 0) -> int:
    """A number written in digits; ValueError for anything else, and for less than the least."""
    if not re.fullmatch(r"\d{1,12}", text) or int(text) < least:
        raise ValueError(f"{what} {text!r}: a whole number is needed, {least} or larger")
    return int(text)


def fingerprint(root: Path, files: Iterable[Path], whole: bool = False) -> Mapping[str, Any]:
    """What tells these files from others: how many, how large, and a hash.

    The hash is over their names and contents up to 2 GiB in all (or `whole`), else over their names and sizes, and says which.
    """
    paths = sorted(set(files))
    sizes = [path.stat().st_size for path in paths]
    contents = whole or sum(sizes) <= HASHED
    digest = hashlib.sha256()
    for path, size in zip(paths, sizes, strict=True):
        told = sha256(path) if contents else str(size)
        digest.update(f"{path.relative_to(root).as_posix()}\0{told}\n".encode())
    return {"files": len(paths), "bytes": sum(sizes), "of": "names and contents" if contents else "names and sizes",
            "sha256": digest.hexdigest()}
