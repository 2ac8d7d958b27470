"""Ways in which compiled code gives another answer than Python, each with the rule that keeps it out.

The traps were found by measurement; `docs/hard_cases.md` lists them all, with the tests that stand elsewhere.
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core import config

from shared.trading.arithmetic import MOST_EXPONENT, MOST_WHOLE, safe_exp, safe_log, safe_sqrt, whole
from shared.trading.checker import faults
from shared.trading.compiled import Failure, scan
from shared.trading.compiled.loops import register
from shared.trading.kernel import kernel
from shared.trading.strategies import load_strategy
from shared.trading.strategy import Strategy
from tests.pure.trading.test_kernels import CROSS, TERMS, walk, written

ALLOWED: dict[str, Any] = {
    "exp": lambda x, y: math.exp(x * 0.01),
    "log": lambda x, y: math.log(abs(x) + 1e-9),
    "log1p": lambda x, y: math.log1p(abs(x)),
    "tanh": lambda x, y: math.tanh(x),
    "sin": lambda x, y: math.sin(x),
    "sqrt": lambda x, y: math.sqrt(abs(x)),
    "pow": lambda x, y: math.pow(abs(x), y * 0.01),
    "% and // of floats": lambda x, y: x % y + x // y,
    "% and // of ints": lambda x, y: float(int(x * 1000.0) % int(y * 1000.0 + 1e6)) + float(int(x * 1000.0) // 7),
    "min and max": lambda x, y: min(x, y) + 3.0 * max(x, y),
    "one-argument round": lambda x, y: float(round(x)),
    "division of what was made float": lambda x, y: float(int(x * 1e15)) / float(int(y * 1e14) + 1),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_kernel_may_use_gives_the_same_bits_compiled(name: str) -> None:
    function = ALLOWED[name]
    x, y = np.random.default_rng(7).normal(0.0, 50.0, (2, 5_000))
    compiled = njit(function, error_model="python")
    told = np.array([compiled(a, b) for a, b in zip(x, y, strict=True)])
    plain = np.array([function(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)])
    assert np.array_equal(told.view(np.int64), plain.view(np.int64))


def test_the_least_of_a_number_and_nothing_is_the_same_compiled() -> None:
    compiled = njit(lambda x, y: min(x, y))
    for pair in ((math.nan, 1.0), (1.0, math.nan), (0.0, -0.0)):
        assert np.float64(compiled(*pair)).tobytes() == np.float64(min(*pair)).tobytes()


def test_numba_uses_no_vector_library_with_other_bits() -> None:
    assert not config.USING_SVML


def test_a_square_gives_other_bits_compiled_which_is_why_the_checker_refuses_it() -> None:
    cube = njit(lambda x: x**3)
    xs = np.random.default_rng(7).normal(0.0, 50.0, 2_000).tolist()
    assert any(cube(x) != x**3 for x in xs)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("x = x\n    x **= 2\n    return x > mean", r"x \*\* y gives other bits"),
        ("return pow(x, 2.0) > mean", r"x \*\* y gives other bits"),
        ("return math.hypot(x, 1.0) > mean", r"math.hypot gives other bits compiled; use math.sqrt"),
        ("return np.exp(x) > mean", r"np adds in another order compiled than live"),
        ("return (x, mean)[-1] > mean", r"a negative index wraps in a list and is refused compiled"),
        ("return [x, mean][0] > mean", r"allocates nothing but ring"),
        ("print(x)\n    return x > mean", r"a kernel has no side effects"),
    ],
)
def test_the_checker_names_the_line_of_a_trap(tmp_path: Path, after: str, said: str) -> None:
    text = CROSS.replace("return x > mean", after).replace(
        "from typing", "import math\nimport numpy as np\nfrom typing"
    )
    (told,) = faults(load_strategy(written(tmp_path, text)))
    assert pytest.raises(AssertionError, match=said).matches(AssertionError(told)), told


OUTSIDE = [
    ("safe_log(x - x)", "ValueError", "a number above 0"),
    ("safe_sqrt(0.0 - x)", "ValueError", "a number >= 0"),
    ("safe_exp(1000.0 + x)", "OverflowError", "below 709.78"),
    ("float(whole(x * 1e19))", "ValueError", "fits 64 bits"),
    ("float(whole(x * math.nan))", "ValueError", "fits 64 bits"),
]


@pytest.fixture(scope="module")
def asks_outside(tmp_path_factory: pytest.TempPathFactory) -> Strategy:
    """Asks at bar 77 for what `trap` says: one strategy, so that it is compiled once."""
    asked = "".join(
        f"if trap == {at}:\n            return {each[0]} > mean\n        " for at, each in enumerate(OUTSIDE)
    )
    text = CROSS.replace(
        "return x > mean", f"if x == {float(walk().close[77])!r}:\n        {asked}\n    return x > mean"
    )
    for before, after in (
        ("mean: float)", "mean: float, trap: int)"),
        ("value(s.mean))", "value(s.mean), p.trap)"),
        ("bars: int = 5", "bars: int = 5\n    trap: int = 0"),
        ('{"bars": (2, 50)}', f'{{"bars": (2, 50), "trap": (0, {len(OUTSIDE) - 1})}}'),
        ("from trimtab import Bar", "from trimtab import safe_exp, safe_log, safe_sqrt, whole, Bar"),
        ("from typing", "import math\nfrom typing"),
    ):
        assert before in text
        text = text.replace(before, after)
    return load_strategy(written(tmp_path_factory.mktemp("outside"), text))


@pytest.mark.parametrize(("trap", "error", "said"), [(at, *each[1:]) for at, each in enumerate(OUTSIDE)])
def test_what_python_refuses_to_compute_is_refused_compiled_at_the_same_bar(
    asks_outside: Strategy, trap: int, error: str, said: str
) -> None:
    with pytest.raises(Failure, match=f"raised {error} at bar 77 .*{said}"):
        scan(asks_outside, walk(), {"trap": trap}, TERMS)


def test_safe_arithmetic_is_pythons_wherever_python_answers() -> None:
    @kernel
    def all_of_them(x: float) -> float:
        return safe_log(x) + safe_sqrt(x) + safe_exp(x) + float(whole(x))

    register()
    compiled = njit(lambda x: all_of_them(x))
    for x in (1e-300, 0.5, 1.0, 700.0, MOST_EXPONENT):
        expected = math.log(x) + math.sqrt(x) + math.exp(x) + float(int(x))
        assert compiled(x) == all_of_them(x) == expected
    assert whole(MOST_WHOLE) == int(MOST_WHOLE) < 2**63
    assert all(math.isnan(safe(math.nan)) for safe in (safe_log, safe_sqrt, safe_exp))


LEVELS = """
from trimtab import kernel


@kernel
def is_better(x: float, mean: float) -> bool:
    return x > mean
"""


def test_an_edit_in_another_file_is_seen_by_what_was_compiled_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba's own cache looks at the file of the strategy alone, and would answer from before the edit."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written(tmp_path, LEVELS, "levels_of_a_test.py")
    text = CROSS.replace("better(bar.close", "is_better(bar.close").replace(
        "from trimtab import", "from levels_of_a_test import is_better\nfrom trimtab import"
    )
    file = written(tmp_path, text)
    before = load_strategy(file)
    earned = scan(before, walk(), {}, TERMS)
    written(tmp_path, LEVELS.replace("x > mean", "x < mean"), "levels_of_a_test.py")
    importlib.reload(sys.modules["levels_of_a_test"])
    after = load_strategy(file)
    assert after.source != before.source
    assert scan(after, walk(), {}, TERMS).stats != earned.stats
