"""Rings inside compiled loops: an array that the loop owns, lent to the state as pointer and length.

Arrays in a state would have their references counted on every bar, atomically: 4.6 times the whole loop. A lent ring has
no count. The arrays belong to the frame that calls the loop.

A row of a table (n_bars, n) is lent in the same way, and so are the integers of a ledger over many instruments.
"""

# pyright: standard, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportIncompatibleMethodOverride=false
# This is numba's inner API: intrinsics are called with one argument less than they are written with, and attributes
# are set on its modules from the environment.

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from shared.trading import loop, portfolio_loop
from shared.trading.kernel import ring

INLINED = {"forceinline": True}  # never inline="always": it miscompiles conditional expressions (numba issue 9489)


class LentRing(types.Type):
    """Numbers of one kind whose memory belongs to somebody else. Authors' indices are checked, a loop's own need not be."""

    def __init__(self, of: Any, is_checked: bool) -> None:
        self.of, self.is_checked = of, is_checked
        super().__init__(name=f"LentRing({of}, {is_checked})")


RINGS = {(of, check): LentRing(of, check) for of in (types.float64, types.int64) for check in (True, False)}
RING = RINGS[types.float64, True]


@register_model(LentRing)
class _LentRingModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("data", types.CPointer(kind.of)), ("size", types.intp)])


def owned(state: Any) -> Any:
    """A state whose rings are arrays, for a compiled loop to borrow."""
    if isinstance(state, tuple):
        parts: tuple[Any, ...] = state
        return type(parts)(*map(owned, parts)) if hasattr(parts, "_fields") else tuple(map(owned, parts))
    return np.array(state, np.float64) if isinstance(state, list) else state


@overload(ring, jit_options=INLINED, strict=False)
def _ring(size: Any) -> Any:
    return lambda size: np.zeros(size)


@overload(loop.lent, jit_options=INLINED, strict=False)
def _lent(state: Any) -> Any:
    return lambda state: _lend(state)


@overload(portfolio_loop.trusted, jit_options=INLINED, strict=False)
def _trusted(state: Any) -> Any:
    return lambda state: _trust(state)


@overload(portfolio_loop.row, jit_options=INLINED, strict=False)
def _row(table: Any, at: Any) -> Any:
    return lambda table, at: _lend_row(table, at)


@overload(len, jit_options=INLINED, strict=False)
def _len(lent: Any) -> Any:
    if isinstance(lent, LentRing):
        return lambda lent: _size(lent)
    return None


@overload(operator.getitem, jit_options=INLINED, strict=False)
def _getitem(lent: Any, at: Any) -> Any:
    if not isinstance(lent, LentRing) or not isinstance(at, types.Integer):
        return None

    def get(lent: Any, at: Any) -> Any:
        if not _is_inside(lent, at):
            raise IndexError("a ring was read outside of 0 .. its length - 1")
        return _load(lent, at)

    return get if lent.is_checked else lambda lent, at: _load(lent, at)


@overload(operator.setitem, jit_options=INLINED, strict=False)
def _setitem(lent: Any, at: Any, value: Any) -> Any:
    if not isinstance(lent, LentRing) or not isinstance(at, types.Integer):
        return None
    kind = lent.of

    def put(lent: Any, at: Any, value: Any) -> Any:
        if not _is_inside(lent, at):
            raise IndexError("a ring was written outside of 0 .. its length - 1")
        _store(lent, at, kind(value))

    return put if lent.is_checked else lambda lent, at, value: _store(lent, at, kind(value))


def _lent_type(kind: Any, is_checked: bool) -> Any:
    if isinstance(kind, types.Array):
        return RINGS[kind.dtype, is_checked]
    if isinstance(kind, types.BaseTuple):
        parts = [_lent_type(part, is_checked) for part in kind.types]
        maker = getattr(kind, "instance_class", None)
        return types.BaseTuple.from_types(parts, maker)
    return kind


@intrinsic
def _lend(context: Any, state: Any) -> Any:
    return _lent_type(state, True)(state), _generate_lending


@intrinsic
def _trust(context: Any, state: Any) -> Any:
    return _lent_type(state, False)(state), _generate_lending


def _generate_lending(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return _lend_value(context, builder, signature.args[0], signature.return_type, arguments[0])


def _lend_value(context: Any, builder: Any, kind: Any, lent: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        made = cgutils.create_struct_proxy(lent)(context, builder)
        made.data = array.data
        made.size = builder.extract_value(array.shape, 0)
        return made._getvalue()
    if isinstance(kind, types.BaseTuple):
        parts = [
            _lend_value(context, builder, part, lent_part, builder.extract_value(value, i))
            for i, (part, lent_part) in enumerate(zip(kind.types, lent.types, strict=True))
        ]
        return context.make_tuple(builder, lent, parts)
    return value


@intrinsic
def _lend_row(context: Any, table: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        made = cgutils.create_struct_proxy(signature.return_type)(context, builder)
        made.size = builder.extract_value(array.shape, 1)
        made.data = _pointer(builder, signature.return_type, array.data, builder.mul(arguments[1], made.size))
        return made._getvalue()

    return RINGS[table.dtype, True](table, types.intp), generate


@intrinsic
def _size(context: Any, lent: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.extract_value(arguments[0], 1)

    return types.intp(lent), generate


@intrinsic
def _is_inside(context: Any, lent: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = builder.extract_value(arguments[0], 1)
        return builder.icmp_unsigned("<", arguments[1], size)  # a negative number is a very large one

    return types.boolean(lent, types.intp), generate


@intrinsic
def _load(context: Any, lent: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_element(builder, signature.args[0], arguments[0], arguments[1]))

    return lent.of(lent, types.intp), generate


@intrinsic
def _store(context: Any, lent: Any, at: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _element(builder, signature.args[0], arguments[0], arguments[1]))
        return context.get_dummy_value()

    return types.void(lent, types.intp, lent.of), generate


def _element(builder: Any, kind: Any, lent: Any, at: Any) -> Any:
    return _pointer(builder, kind, builder.extract_value(lent, 0), at)


def _pointer(builder: Any, kind: Any, data: Any, at: Any) -> Any:
    element = ir.DoubleType() if kind.of is types.float64 else ir.IntType(64)
    return builder.gep(data, [at], inbounds=True, source_etype=element)
