"""What a kernel is, and what may be done with a state. Compiling is elsewhere, in compiled.py.

A kernel is plain Python that numba can compile as well: `+ - * /`, comparisons, scalar `math.*`, rings, other kernels.
Not numpy, `**`, `sum`, `round(x, n)`: they give other bits compiled than interpreted (`checker` says so by line).

A state is a NamedTuple of numbers, rings and states. `step` *consumes* it: rings change in place, so only the returned
state may be used afterwards. Take a `copy` first to try something, `freeze` it to keep it.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from shared.contracts.errors import TrimtabError

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")

# Every function that was marked -> whether numba has been given it. Only `compiled` looks at the values.
KERNELS: dict[Callable[..., Any], bool] = {}


class OtherSource(TrimtabError):
    """A frozen state comes from other code than the one at hand: warm it again from bars, never thaw it."""


def kernel(function: F) -> F:
    """Mark a function as one that decides or executes. It stays the plain function that it is."""
    KERNELS[function] = False
    return function


def ring(size: int) -> list[float]:
    """Room for `size` numbers, all 0.0: the only allocation that a kernel may make, and only in `start`."""
    return [0.0] * size


def copy(state: S) -> S:
    """A state that shares nothing with this one, so that one of them may be stepped."""
    return cast(S, _copied(state))


def same(one: object, other: object) -> bool:
    """Whether two states are equal bit for bit: NaN equals NaN, 0.0 is not -0.0, 1 is not 1.0."""
    return list(_leaves(one)) == list(_leaves(other))


def freeze(state: object, source: str) -> bytes:
    """The exact bytes of a state, stamped with the fingerprint of the code that made it."""
    return b"".join((bytes.fromhex(source), *_leaves(state)))


def thaw(frozen: bytes, like: S, source: str) -> S:
    """The state that was frozen. `like` is any state of that shape (`start(params)`).

    Raises OtherSource when the code, or the shape, is another than the one that froze it.
    """
    stamp = bytes.fromhex(source)
    if not frozen.startswith(stamp):
        raise OtherSource(
            f"A frozen state must come from source {source[:12]}, was {frozen[: len(stamp)].hex()[:12]}. "
            "Warm it again from closed bars."
        )
    reader = _Reader(frozen, len(stamp))
    state = reader.read(like)
    if reader.at != len(frozen):
        raise OtherSource(f"A frozen state of {reader.at} bytes was expected, there were {len(frozen)}. Warm it again.")
    return cast(S, state)


def fingerprint(*subjects: object) -> str:
    """SHA-256 (hex) of everything that these functions and tuple classes are made of, wherever it stands.

    Bytecode, constants, defaults, the fields of tuple classes, and every function reached from there. It reads no file,
    so a notebook's function has one too, and a comment changes nothing. Bytecode is Python's own, so its version
    is in it.
    """
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for part in _Walk().parts(subjects):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _copied(value: Any) -> Any:
    if isinstance(value, tuple):
        parts = cast("tuple[Any, ...]", value)
        make = cast(Any, type(parts))
        return make(*map(_copied, parts)) if hasattr(make, "_fields") else tuple(map(_copied, parts))
    return cast("list[float]", value).copy() if isinstance(value, list) else value


def _leaves(value: object) -> Iterator[bytes]:
    match value:
        case bool():
            yield struct.pack("<c?", b"b", value)
        case int():
            yield struct.pack("<cq", b"i", value)
        case float():
            yield struct.pack("<cd", b"f", value)
        case list():
            numbers = cast("list[float]", value)
            yield struct.pack(f"<cq{len(numbers)}d", b"r", len(numbers), *numbers)
        case tuple():
            for part in cast("tuple[object, ...]", value):
                yield from _leaves(part)
        case _:
            raise TypeError(f"A state holds int, float, bool, rings and tuples of them, there was {value!r}.")


class _Reader:
    """Reads leaves back in the order in which they were written."""

    def __init__(self, frozen: bytes, at: int) -> None:
        self.frozen = frozen
        self.at = at

    def read(self, like: Any) -> Any:
        if isinstance(like, tuple):
            parts = [self.read(part) for part in cast("tuple[Any, ...]", like)]
            make = cast(Any, type(cast(object, like)))
            return make(*parts) if hasattr(make, "_fields") else tuple(parts)
        if isinstance(like, list):
            size = len(cast("list[float]", like))
            kind, count = self._take("<cq")
            self._expect(kind == b"r" and count == size)
            return list(self._take(f"<{size}d"))
        code, letter = (b"b", "?") if isinstance(like, bool) else (b"i", "q") if isinstance(like, int) else (b"f", "d")
        kind, value = self._take(f"<c{letter}")
        self._expect(kind == code)
        return value

    def _take(self, form: str) -> tuple[Any, ...]:
        self._expect(self.at + struct.calcsize(form) <= len(self.frozen))
        taken = struct.unpack_from(form, self.frozen, self.at)
        self.at += struct.calcsize(form)
        return taken

    def _expect(self, held: bool) -> None:
        if not held:
            raise OtherSource(f"A frozen state has another shape from byte {self.at} on. Warm it again from bars.")


class _Walk:
    """From a function to all that it is made of, each thing once."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def parts(self, value: object) -> Iterator[str]:
        if isinstance(value, types.FunctionType):
            if id(value) not in self.seen:
                self.seen.add(id(value))
                yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, (tuple, list)):
            for part in cast("tuple[object, ...]", value):
                yield from self.parts(part)
        elif isinstance(value, dict):
            for key, part in cast("dict[object, object]", value).items():
                yield repr(key)
                yield from self.parts(part)
        elif isinstance(value, (types.BuiltinFunctionType, types.ModuleType)):
            yield value.__name__
        else:
            yield repr(value)

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        yield function.__name__
        yield from self.parts(function.__defaults__ or ())
        yield from self.parts(function.__kwdefaults__ or {})
        yield from self.parts([cell.cell_contents for cell in function.__closure__ or ()])
        yield from self._code(function.__code__, function.__globals__, function.__doc__)

    def _code(self, code: types.CodeType, names: dict[str, Any], doc: str | None) -> Iterator[str]:
        yield code.co_code.hex()
        yield repr((code.co_names, code.co_varnames, code.co_argcount))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from self._code(constant, names, None)
            elif isinstance(constant, frozenset):
                yield repr(
                    sorted(map(repr, cast("frozenset[object]", constant)))
                )  # the order of a set of strings changes from run to run
            elif constant is None or constant != doc:
                yield repr(constant)
        modules: list[types.ModuleType] = []
        for name in code.co_names:
            value = names.get(name, _ABSENT)
            if isinstance(value, types.ModuleType):
                modules.append(value)
            elif value is not _ABSENT:
                yield from self.parts(value)
            for module in modules:  # `indicators.sma_step`: follow what is used of it
                if module.__name__ != "math" and hasattr(module, name):
                    yield from self.parts(getattr(module, name))

    def _class(self, kind: type) -> Iterator[str]:
        yield kind.__name__
        fields = cast("tuple[str, ...]", getattr(kind, "_fields", ()))
        annotations = cast("dict[str, object]", getattr(kind, "__annotations__", {}))
        yield repr([(name, _type_name(annotations.get(name))) for name in fields])
        yield repr(getattr(kind, "_field_defaults", {}))


_ABSENT = object()


def _type_name(annotation: object) -> str:
    """`int`, `"int"` and `ForwardRef("int")` are one."""
    name = getattr(annotation, "__forward_arg__", None) or getattr(annotation, "__name__", None)
    return str(name or annotation)
