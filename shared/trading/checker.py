"""What a strategy's author should hear before anything compiles: the rules of kernels, by line, and a dry run.

for fault in faults(STRATEGY): print(fault)
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

from shared.trading.kernel import KERNELS
from shared.trading.portfolio import NOISE, Market
from shared.trading.strategy import PortfolioStrategy, Strategy
from shared.trading.values import UNKNOWN, Bar, Regime, Target

DRY_BARS = 300
FORBIDDEN_CALLS = {
    "sum": "built-in sum() adds with compensation in newer Pythons; add in a loop",
    "print": "a kernel has no side effects",
    "open": "a kernel has no side effects",
}
FORBIDDEN_METHODS = {
    "_replace": "_replace does not compile; write the tuple out",
    "hypot": "math.hypot gives other bits compiled; use math.sqrt(x * x + y * y)",
}


def faults(strategy: Strategy | PortfolioStrategy) -> list[str]:
    """Everything that would stop this strategy, or give other bits compiled than interpreted. Empty: none was found."""
    broken = [
        fault
        for function in _kernels_of(strategy.start, strategy.step)
        for fault in _broken_rules(cast(types.FunctionType, function))
    ]
    return broken or list(_dry_run(strategy) if isinstance(strategy, Strategy) else _dry_portfolio(strategy))


def _kernels_of(*functions: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """These functions and all that they call, each once; those of this package are taken to be right."""
    waiting, seen = list(functions), set[int]()
    while waiting:
        function = waiting.pop(0)
        if id(function) in seen or not isinstance(function, types.FunctionType):
            continue
        seen.add(id(function))
        if function.__module__.startswith("shared.trading.") and ".strategies" not in function.__module__:
            waiting += [cell.cell_contents for cell in function.__closure__ or ()]
            continue
        yield function
        waiting += [function.__globals__.get(name) for name in function.__code__.co_names]


def _broken_rules(function: types.FunctionType) -> Iterator[str]:
    place = f"{function.__code__.co_filename}:"
    if function not in KERNELS:
        yield f"{place}{function.__code__.co_firstlineno}: put @kernel on {function.__name__}"
        return
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError:  # no text to show, as in a notebook that was closed: the dry run and numba still judge
        return
    tree = ast.parse(textwrap.dedent("".join(lines)))
    for node in ast.walk(tree):
        said = _fault_of(node, function.__globals__)
        if said:
            yield f"{place}{first + cast(Any, node).lineno - 1}: {said}"


def _fault_of(node: ast.AST, names: dict[str, Any]) -> str:
    match node:
        case ast.BinOp(op=ast.Pow()) | ast.AugAssign(op=ast.Pow()) | ast.Call(func=ast.Name(id="pow")):
            return "x ** y gives other bits compiled; write x * x, math.sqrt(x) or math.pow(x, y)"
        case ast.Call(func=ast.Name(id="Target"), args=args, keywords=keywords) if len(args) + len(keywords) < len(
            Target._fields
        ):
            return "Target is written out whole in a kernel, or said with long(), short() or flat()"
        case ast.Call(func=ast.Name(id="round"), args=[_, _, *_]):
            return "round(x, n) gives other bits compiled; leave the rounding to the ledger"
        case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
            return FORBIDDEN_CALLS[name]
        case ast.Call(func=ast.Attribute(attr=name)) if name in FORBIDDEN_METHODS:
            return FORBIDDEN_METHODS[name]
        case ast.Name(id=name) if getattr(names.get(name), "__name__", "").split(".")[0] in (
            "numpy",
            "pandas",
            "polars",
        ):
            return f"{name} adds in another order compiled than live; use scalar math and indicators"
        case ast.Subscript(slice=ast.UnaryOp(op=ast.USub())):
            return "a negative index wraps in a list and is refused compiled; count from the front"
        case ast.Dict() | ast.DictComp() | ast.ListComp() | ast.SetComp() | ast.List() | ast.Set():
            return "a kernel allocates nothing but ring(n), in start"
        case _:
            return ""


def _dry_run(strategy: Strategy) -> Iterator[str]:
    """Step through a few hundred made-up bars and look at the kinds of what comes back."""
    params = strategy.params()
    state = strategy.start(params)
    for i in range(DRY_BARS):
        wave = 100.0 + 10.0 * math.sin(i / 9.0) + 3.0 * math.sin(i / 2.3)
        bar = Bar(i * 60_000, wave, wave + 1.0, wave - 1.0, wave + 0.5, 10.0)
        regime = UNKNOWN if i < DRY_BARS // 2 else Regime(0.5, 0.2, 0.3)
        try:
            state, target = strategy.step(state, bar, regime, params)
        except Exception as error:  # noqa: BLE001 - the author's, told with its place
            line = _last_line(error)
            yield f"{line}: raised {type(error).__name__} on bar {i} of a dry run: {error}"
            return
        wrong = list(_wrong_kinds(state, type(state).__name__)) + list(_wrong_target(target))
        if wrong:
            yield from (f"{strategy.name}, bar {i} of a dry run: {said}" for said in wrong)
            return


def _dry_portfolio(strategy: PortfolioStrategy) -> Iterator[str]:
    """The same with slices of a market, in which now and then a bar is absent."""
    params, n = strategy.params(), max(strategy.instruments[0], min(3, strategy.instruments[1]))
    state, weights = strategy.start(params, n), [0.0] * n
    for i in range(DRY_BARS):
        closes = [math.nan if (i + 7 * k) % 50 == 49 else 100.0 + 10.0 * math.sin(i / (9.0 + k) + k) for k in range(n)]
        market = Market(i * 60_000, closes.copy(), closes.copy(), closes.copy(), closes, [1.0] * n)
        regime = UNKNOWN if i < DRY_BARS // 2 else Regime(0.5, 0.2, 0.3)
        try:
            state, is_decided = strategy.step(state, market, regime, params, weights)
        except Exception as error:  # noqa: BLE001 - the author's, told with its place
            yield f"{_last_line(error)}: raised {type(error).__name__} on bar {i} of a dry run: {error}"
            return
        wrong = list(_wrong_kinds(state, type(state).__name__)) + list(_wrong_weights(weights, is_decided))
        if wrong:
            yield from (f"{strategy.name}, bar {i} of a dry run: {said}" for said in wrong)
            return


def _wrong_weights(weights: list[float], is_decided: Any) -> Iterator[str]:
    if type(is_decided) is not bool:
        yield f"step must return (state, bool), was {is_decided!r}"
    if any(type(cast(object, weight)) is not float for weight in weights):
        yield f"weights must be floats, were {weights!r}"
    elif not sum(map(abs, weights)) <= 1.0 + NOISE:
        yield f"weights must add up to 1 at most, were {weights!r}"


def _wrong_kinds(state: Any, path: str) -> Iterator[str]:
    if not hasattr(state, "_fields"):
        yield f"{path} must be a NamedTuple, was {type(state).__name__}"
        return
    kinds = {"int": int, "float": float, "bool": bool}
    for name, value in zip(state._fields, state, strict=True):
        annotation = type(state).__annotations__[name]
        expected = getattr(annotation, "__forward_arg__", None) or getattr(annotation, "__name__", str(annotation))
        if expected in kinds and type(value) is not kinds[expected]:
            yield f"{path}.{name} must stay {expected}, was {value!r}: write {'0.0, not 0' if expected == 'float' else 'int(...)'}"
        elif isinstance(value, tuple):
            yield from _wrong_kinds(value, f"{path}.{name}")


def _wrong_target(target: Any) -> Iterator[str]:
    if not isinstance(target, Target):
        yield f"step must return (state, Target), was {target!r}"
    elif type(cast(object, target.exposure)) is not float or not -1.0 <= target.exposure <= 1.0:
        yield f"a target's exposure must be a float in -1..1, was {target.exposure!r}"


def _last_line(error: BaseException) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
