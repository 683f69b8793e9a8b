"""Data files to frozen dataclasses: TOML recipes and JSON, checked, with messages a person can act on."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def load(kind: type[T], path: Path, overrides: tuple[str, ...] = ()) -> T:
    """A dataclass from a .toml or .json file; `overrides` are `key.path=value` with TOML values.

    Raises ValueError that names the file, the key, the value and the rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: could not be read ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected keys and values, got {type(data).__name__}")
    for override in overrides:
        _override(data, override)
    return parse(kind, data, str(path))


def parse(kind: type[T], data: Any, source: str) -> T:
    """A dataclass from plain data; unknown keys and wrong types are refused."""
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        value = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
        raise ValueError(f"{source}: {key}: {first['msg']}{value}") from error


def dump(value: Any) -> Any:
    """Plain data of a dataclass, ready for JSON."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def _override(data: dict[str, Any], override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator:
        raise ValueError(f"--set {override}: expected key.path=value")
    *sections, key = path.strip().split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    try:
        data[key] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        data[key] = value                        # a bare word is a string
