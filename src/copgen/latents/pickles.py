"""Which arrays does a pickle hold? Found out without unpickling, as that would run whatever code the pickle names.

A pickle is a program for a small stack machine (the opcodes are in Python's pickletools). The few that numpy needs for an array are
followed here, on plain values: names of functions are only compared with numpy's own, nothing is imported or called, and the numbers are
taken out of the bytes that are there, so that no claim of a size makes more memory than the pickle itself has. Plain bytes in a dictionary
are taken for the numbers of an array whose shape the pickle does not say. Everything else is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 2**30                                  # bytes of a pickle that is looked into
CODES = ("f2", "f4", "f8")                       # numbers of 16, 32 and 64 bits
NAMES = {("numpy", "dtype"): "dtype", ("numpy", "ndarray"): "ndarray"} | {
    (f"numpy.{core}.{module}", name): name
    for core in ("core", "_core") for module, name in (("numeric", "_frombuffer"), ("multiarray", "_reconstruct"))}
VALUES = {"SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Named:
    """One of numpy's names, which nobody calls."""

    what: str


@dataclass
class Kind:
    """A dtype that is being described."""

    code: str
    order: str = "="


@dataclass
class Described:
    """An array that is being described."""

    array: NDArray[Any] | None = None


def arrays_in(data: bytes) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The array of a pickle, or the dictionary of arrays by name; read-only. Plain bytes in a dictionary become float32 [n].

    Raises ValueError, with the place in the pickle, for everything else, damaged pickles included.
    """
    if len(data) > LARGEST:
        raise ValueError(f"a pickle of {len(data)} bytes, and those of latents have at most {LARGEST}")
    machine, position = Machine(), 0
    try:
        for opcode, argument, at in pickletools.genops(data):
            position = at or 0
            machine.follow(opcode.name, argument)
        (found,) = machine.stack
        if position + 1 != len(data):
            raise ValueError("more follows after its end")
        return {key: array_of(value, bare=True) for key, value in found.items()} if isinstance(found, dict) else array_of(found)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"not an array of numbers as numpy pickles it, at byte {position}: {error or type(error).__name__}; it was not "
                         "unpickled, as that could run code") from error


class Machine:
    """The stack machine of pickles, less all that is not needed for arrays."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def follow(self, operation: str, argument: Any) -> None:
        """One operation; ValueError, or what its stack says, for one that is not expected."""
        if operation in VALUES:
            self.stack.append(argument)
        elif operation in CONSTANTS:
            self.stack.append(CONSTANTS[operation])
        elif operation in TUPLES:
            self.stack.append(self.taken(TUPLES[operation]))
        elif operation in OPERATIONS:
            OPERATIONS[operation](self, argument)
        else:
            raise ValueError(f"the operation {operation}")

    def taken(self, count: int) -> tuple[Any, ...]:
        """The last so many values, off the stack."""
        if count > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise ValueError("more is taken than is there")
        taken = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return taken

    def since_mark(self) -> tuple[Any, ...]:
        return self.taken(len(self.stack) - self.marks[-1]) if self.marks else self.taken(1 + len(self.stack))

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def gather(self, _: Any) -> None:
        values = self.since_mark()
        self.marks.pop()
        self.stack.append(values)

    def remember(self, number: Any) -> None:
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def recall(self, number: Any) -> None:
        self.stack.append(self.memo[number])

    def name(self, text: Any) -> None:
        """`module name` of older pickles, or both on the stack."""
        module, name = self.taken(2) if text is None else text.split(" ", 1)
        if not (isinstance(module, str) and isinstance(name, str) and (module, name) in NAMES):
            raise ValueError(f"the name {module!s:.60}.{name!s:.60}, which is none of numpy's for arrays")
        self.stack.append(Named(NAMES[module, name]))

    def empty(self, _: Any) -> None:
        self.stack.append({})

    def item(self, _: Any) -> None:
        self.put(self.taken(2))

    def items(self, _: Any) -> None:
        values = self.since_mark()
        self.marks.pop()
        self.put(values)

    def put(self, values: tuple[Any, ...]) -> None:
        into = self.stack[-1]
        if not isinstance(into, dict) or len(values) % 2 or not all(isinstance(key, str) for key in values[::2]):
            raise ValueError("items of something else than a dictionary by name")
        into.update(zip(values[::2], values[1::2], strict=True))

    def call(self, _: Any) -> None:
        """What numpy would make, described."""
        match self.taken(2):
            case Named("dtype"), (str(code), False, True) if code in CODES:
                self.stack.append(Kind(code))
            case Named("_frombuffer"), (bytes() | bytearray() as buffer, Kind() as kind, tuple(shape), "C" | "F" as order):
                self.stack.append(Described(array_from(buffer, kind, shape, order == "F")))
            case Named("_reconstruct"), (Named("ndarray"), (0,), b"b"):
                self.stack.append(Described())
            case _:
                raise ValueError("a call that makes no array of numbers")

    def build(self, _: Any) -> None:
        """The rest of a description that was begun."""
        (state,) = self.taken(1)
        match self.stack[-1], state:
            case Kind() as kind, (3, "<" | ">" as order, None, None, None, -1, -1, 0):
                kind.order = order
            case Described() as described, (1, tuple(shape), Kind() as kind, bool(by_columns), bytes(buffer)):
                described.array = array_from(buffer, kind, shape, by_columns)
            case _:
                raise ValueError("a state that no array of numbers has")

    def nothing(self, _: Any) -> None:
        """Marks of the protocol, and the end."""


OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": Machine.nothing, "FRAME": Machine.nothing, "STOP": Machine.nothing, "MARK": Machine.mark, "TUPLE": Machine.gather,
    "MEMOIZE": Machine.remember, "BINPUT": Machine.remember, "LONG_BINPUT": Machine.remember, "BINGET": Machine.recall,
    "LONG_BINGET": Machine.recall, "GLOBAL": Machine.name, "STACK_GLOBAL": Machine.name, "EMPTY_DICT": Machine.empty,
    "SETITEM": Machine.item, "SETITEMS": Machine.items, "REDUCE": Machine.call, "BUILD": Machine.build}


def array_from(buffer: bytes | bytearray, kind: Kind, shape: tuple[Any, ...], by_columns: bool) -> NDArray[Any]:
    """The numbers that are there; ValueError where the shape claims others."""
    dtype = np.dtype(kind.order + kind.code)
    if not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 8 or prod(shape) * dtype.itemsize != len(buffer):
        raise ValueError(f"{len(buffer)} bytes for an array that claims to be of another size")
    array = np.frombuffer(buffer, dtype).reshape(shape, order="F" if by_columns else "C")    # no copy: a buffer can be recalled often
    array.setflags(write=False)
    return array


def array_of(value: Any, bare: bool = False) -> NDArray[Any]:
    if bare and isinstance(value, bytes):
        return np.frombuffer(value, "<f4")
    if not isinstance(value, Described) or value.array is None:
        raise ValueError("something else than an array, or one without its numbers")
    return value.array
