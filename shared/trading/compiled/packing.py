"""Tuples of numbers as rows of a table, so that a compiled loop takes any strategy's parameters and tells any result.

A number is eight bytes: an int is itself, a float its bits, a bool 0 or 1. Rings are left out. Python's half is here,
the compiled half is `loop.unpacked` and `loop.pack`.
"""

# pyright: standard, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# This is numba's inner API: intrinsics are called with one argument less than they are written with.

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, type_callable

from shared.trading import loop
from shared.trading.columns import Integers
from shared.trading.compiled.lending import RING


def packed(values: Sequence[Any]) -> Integers:
    """A row for each of these tuples (k, numbers)."""
    return np.array([[_bits(leaf) for leaf in _leaves(value)] for value in values], np.int64)


def unpacked(table: Integers, like: Any) -> list[Any]:
    """The tuple in each row, of the form of `like`, its rings included."""
    row = struct.Struct("<" + "".join("d" if isinstance(leaf, float) else "q" for leaf in _leaves(like)))
    read = _reader(like)
    return [read(iter(numbers)) for numbers in row.iter_unpack(table.tobytes())]


def width(like: Any) -> int:
    """How many numbers such a tuple has."""
    return sum(1 for _ in _leaves(like))


def _leaves(value: Any) -> Iterator[float]:
    if isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)
    elif not isinstance(value, list):
        yield value


def _bits(leaf: float) -> int:
    return struct.unpack("<q", struct.pack("<d", leaf))[0] if isinstance(leaf, float) else int(leaf)


def _reader(like: Any) -> Callable[[Iterator[Any]], Any]:
    """What makes such a tuple of numbers in a row."""
    if isinstance(like, tuple):
        readers = [_reader(part) for part in like]
        make = getattr(like, "_make", tuple)
        return lambda numbers: make([read(numbers) for read in readers])
    if isinstance(like, list):
        return lambda _: like
    return (lambda numbers: bool(next(numbers))) if isinstance(like, bool) else next


@type_callable(loop.unpacked)
def _unpacked_type(context: Any) -> Any:
    return lambda table, row, like: like


@lower_builtin(loop.unpacked, types.Array, types.Integer, types.BaseTuple)
def _load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    cells = _cells(context, builder, signature.args[0], arguments[0], arguments[1])
    return _loaded(context, builder, signature.return_type, cells)


def _loaded(context: Any, builder: Any, kind: Any, cells: Iterator[Any]) -> Any:
    if isinstance(kind, types.BaseTuple):
        return context.make_tuple(builder, kind, [_loaded(context, builder, part, cells) for part in kind.types])
    bits = builder.load(next(cells))
    if isinstance(kind, types.Float):
        return builder.bitcast(bits, ir.DoubleType())
    return builder.trunc(bits, ir.IntType(1)) if isinstance(kind, types.Boolean) else bits


@type_callable(loop.pack)
def _packed_type(context: Any) -> Any:
    return lambda table, row, value: types.void


@lower_builtin(loop.pack, types.Array, types.Integer, types.BaseTuple)
def _store(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    cells = _cells(context, builder, signature.args[0], arguments[0], arguments[1])
    _stored(context, builder, signature.args[2], cells, arguments[2])
    return context.get_dummy_value()


def _stored(context: Any, builder: Any, kind: Any, cells: Iterator[Any], value: Any) -> None:
    if isinstance(kind, types.BaseTuple):
        for i, part in enumerate(kind.types):
            _stored(context, builder, part, cells, builder.extract_value(value, i))
    elif isinstance(kind, types.Float):
        builder.store(builder.bitcast(value, ir.IntType(64)), next(cells))
    elif isinstance(kind, (types.Integer, types.Boolean)):
        builder.store(context.cast(builder, value, kind, types.int64), next(cells))
    elif kind is not RING and not isinstance(kind, types.Array):
        raise TypeError(f"A row holds int, float and bool, there was {kind}.")


def _cells(context: Any, builder: Any, kind: Any, table: Any, row: Any) -> Iterator[Any]:
    """Pointers to the cells of a row of an int64 table (k, numbers), one after the other."""
    array = context.make_array(kind)(context, builder, table)
    first = builder.mul(row, builder.extract_value(array.shape, 1))
    at = 0
    while True:
        here = builder.add(first, ir.Constant(ir.IntType(64), at))
        yield builder.gep(array.data, [here], source_etype=ir.IntType(64))
        at += 1
