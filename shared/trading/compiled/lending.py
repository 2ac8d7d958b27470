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
from numba.extending import lower_builtin, models, register_model, type_callable
from numba.np.arrayobj import populate_array

from shared.trading import loop, portfolio_loop
from shared.trading.kernel import ring

# Typed and generated here, without a body: what numba is given as Python takes it 20 to 50 ms to compile, for each kind
# of argument, and a strategy reads a dozen.


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


@type_callable(ring)
def _ring_type(context: Any) -> Any:
    return lambda size: types.Array(types.float64, 1, "C")


@lower_builtin(ring, types.Integer)
def _new_ring(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    none, number = ir.Constant(ir.IntType(64), 0), ir.Constant(ir.IntType(64), 8)
    (size,) = arguments
    size = builder.select(builder.icmp_signed("<", size, none), none, size)  # as `[0.0] * size`
    length = builder.mul(size, number)
    memory = context.nrt.meminfo_alloc_aligned(builder, length, align=32)
    data = context.nrt.meminfo_data(builder, memory)
    cgutils.memset(builder, data, length, 0)
    made = context.make_array(signature.return_type)(context, builder)
    data = builder.bitcast(data, ir.DoubleType().as_pointer())
    populate_array(made, data=data, shape=[size], strides=[number], itemsize=number, meminfo=memory)
    return made._getvalue()


@type_callable(loop.lent)
def _lent_state(context: Any) -> Any:
    return lambda state: _lent_type(state, True)


@type_callable(loop.trusted)
def _trusted_state(context: Any) -> Any:
    return lambda owner: _lent_type(owner, False)


@lower_builtin(loop.lent, types.Any)
@lower_builtin(loop.trusted, types.Any)
def _lend(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return _lend_value(context, builder, signature.args[0], signature.return_type, arguments[0])


@type_callable(portfolio_loop.row)
def _row_type(context: Any) -> Any:
    return lambda table, at: RINGS[table.dtype, True]


@lower_builtin(portfolio_loop.row, types.Array, types.Integer)
def _lend_row(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    made = cgutils.create_struct_proxy(signature.return_type)(context, builder)
    made.size = builder.extract_value(array.shape, 1)
    made.data = _pointer(builder, signature.return_type, array.data, builder.mul(arguments[1], made.size))
    return made._getvalue()


@type_callable(len)
def _size_type(context: Any) -> Any:
    return lambda lent: types.intp if isinstance(lent, LentRing) else None


@lower_builtin(len, LentRing)
def _size(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.extract_value(arguments[0], 1)


@type_callable(operator.getitem)
def _number_type(context: Any) -> Any:
    def typed(lent: Any, at: Any) -> Any:
        return lent.of(lent, types.intp) if isinstance(lent, LentRing) and isinstance(at, types.Integer) else None

    return typed


@lower_builtin(operator.getitem, LentRing, types.Integer)
def _load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.load(_element(context, builder, signature.args[0], *arguments, "read"))


@type_callable(operator.setitem)
def _no_type(context: Any) -> Any:
    def typed(lent: Any, at: Any, value: Any) -> Any:
        is_ours = isinstance(lent, LentRing) and isinstance(at, types.Integer)
        return types.void(lent, types.intp, lent.of) if is_ours else None

    return typed


@lower_builtin(operator.setitem, LentRing, types.Integer, types.Any)
def _store(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    lent, at, value = arguments
    builder.store(value, _element(context, builder, signature.args[0], lent, at, "written"))
    return context.get_dummy_value()


def _element(context: Any, builder: Any, kind: Any, lent: Any, at: Any, done: str) -> Any:
    if kind.is_checked:
        size = builder.extract_value(lent, 1)
        with builder.if_then(builder.icmp_unsigned(">=", at, size), likely=False):  # a negative number is very large
            said = f"a ring was {done} outside of 0 .. its length - 1"
            context.call_conv.return_user_exc(builder, IndexError, (said,))
    return _pointer(builder, kind, builder.extract_value(lent, 0), at)


def _pointer(builder: Any, kind: Any, data: Any, at: Any) -> Any:
    element = ir.DoubleType() if kind.of is types.float64 else ir.IntType(64)
    return builder.gep(data, [at], inbounds=True, source_etype=element)


def _lent_type(kind: Any, is_checked: bool) -> Any:
    if isinstance(kind, types.Array):
        return RINGS[kind.dtype, is_checked]
    if isinstance(kind, types.BaseTuple):
        parts = [_lent_type(part, is_checked) for part in kind.types]
        maker = getattr(kind, "instance_class", None)
        return types.BaseTuple.from_types(parts, maker)
    return kind


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
