"""States are kept exactly, code is known by what it does, and authors hear early what will not work."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
import traceback
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.checker import faults
from shared.trading.columns import Columns
from shared.trading.compiled import Failure, Run, Terms, grid, scan
from shared.trading.compiled.loops import compiled_loop
from shared.trading.indicators import sma, sma_step
from shared.trading.kernel import OtherSource, copy, fingerprint, freeze, same, thaw
from shared.trading.strategies import BUILT_IN, find_strategy, load_strategies, load_strategy
from shared.trading.strategy import BadParams, Strategy, strategy

BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
TERMS = Terms(BTC, "1m", Costs(fee_bps=10, slippage_bps=5), Decimal(10_000))
SOURCE = "ab" * 32

CROSS = '''
"""Long above an average."""

from typing import NamedTuple

from trimtab import Bar, Regime, Sma, Target, flat, kernel, long, sma, sma_step, strategy, value


class Params(NamedTuple):
    bars: int = 5


class State(NamedTuple):
    mean: Sma
    seen: int


@kernel
def start(p: Params) -> State:
    return State(sma(p.bars), 0)


@kernel
def better(x: float, mean: float) -> bool:
    return x > mean


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    s = State(sma_step(s.mean, bar.close), s.seen + 1)
    return s, long() if better(bar.close, value(s.mean)) else flat()


STRATEGY = strategy("cross", Params, start, step, bounds={"bars": (2, 50)}, warmup=lambda p: p.bars)
'''


def walk(count: int = 400) -> Columns:
    rng = np.random.default_rng(1)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.002, count)))
    open = np.concatenate([[100.0], close[:-1]])
    return Columns.of(
        np.arange(count) * 60_000, open, np.maximum(open, close), np.minimum(open, close), close, np.ones(count)
    )


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return file


class Pair(NamedTuple):
    past: list[float]
    seen: int
    mean: float
    is_on: bool


def test_a_frozen_state_is_thawed_bit_for_bit() -> None:
    state = Pair([0.1 + 0.2, -0.0, math.nan], 7, math.inf, True)
    back = thaw(freeze(state, SOURCE), Pair([0.0] * 3, 0, 0.0, False), SOURCE)
    assert same(back, state)
    assert type(back) is Pair


def test_a_state_of_other_code_or_another_shape_is_never_thawed() -> None:
    frozen = freeze(Pair([1.0], 1, 1.0, True), SOURCE)
    like = Pair([0.0], 0, 0.0, False)
    for wrong, shape in ((frozen, "cd" * 32), (frozen[:-1], SOURCE), (frozen + b"x", SOURCE), (b"", SOURCE)):
        with pytest.raises(OtherSource, match="Warm it again"):
            thaw(wrong, like, shape)
    with pytest.raises(OtherSource, match="another shape"):
        thaw(frozen, Pair([0.0, 0.0], 0, 0.0, False), SOURCE)


def test_a_copy_may_be_stepped_without_touching_the_state_that_it_was_made_of() -> None:
    state = sma_step(sma(3), 1.0)
    kept = freeze(state, SOURCE)
    sma_step(copy(state), 5.0)
    assert freeze(state, SOURCE) == kept
    sma_step(state, 5.0)
    assert freeze(state, SOURCE) != kept  # consumed: its ring has moved on


def test_same_means_the_same_bits() -> None:
    assert same((math.nan, 1, [0.0]), (math.nan, 1, [0.0]))
    assert not same((0.0,), (-0.0,))
    assert not same((1,), (1.0,))
    assert not same((1,), (True,))


def test_code_is_known_by_all_that_it_reaches_and_not_by_its_comments(tmp_path: Path) -> None:
    original = load_strategy(written(tmp_path / "a", CROSS)).source
    assert (
        load_strategy(written(tmp_path / "b", CROSS.replace("return x > mean", "return x > mean  # why"))).source
        == original
    )
    for before, after in (
        ("return x > mean", "return x >= mean"),
        ("bars: int = 5", "bars: int = 6"),
        ("seen + 1", "seen + 2"),
    ):
        assert load_strategy(written(tmp_path / "c", CROSS.replace(before, after))).source != original


def test_the_order_of_a_set_of_names_does_not_change_a_fingerprint() -> None:
    def one(x: str) -> bool:
        return x in {"a", "b", "c"}

    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(lambda x: x in {"a", "b", "d"})


def test_an_edit_of_the_same_length_is_seen_by_what_was_compiled_before(tmp_path: Path) -> None:
    file = written(tmp_path / "a", CROSS)
    before = scan(load_strategy(file), walk(), {}, TERMS)
    written(tmp_path / "a", CROSS.replace("return x > mean", "return x < mean"))
    after = scan(load_strategy(file), walk(), {}, TERMS)
    written(tmp_path / "a", CROSS)
    again = scan(load_strategy(file), walk(), {}, TERMS)
    assert before.stats != after.stats
    assert again.stats == before.stats


def test_a_strategy_that_does_not_compile_runs_slower_and_gives_the_same(tmp_path: Path) -> None:
    text = CROSS.replace("return x > mean", "return type(x).__name__ == 'float' and x > mean")
    slow, quick = load_strategy(written(tmp_path, text)), load_strategy(written(tmp_path, CROSS, "quick.py"))
    with pytest.warns(UserWarning, match=r"cross does not compile and runs interpreted"):
        run = scan(slow, walk(), {}, TERMS)
    assert run.stats == scan(quick, walk(), {}, TERMS).stats


def test_a_strategy_that_raises_is_told_with_its_bar_and_its_own_traceback(tmp_path: Path) -> None:
    bars = walk()
    first = 250
    text = CROSS.replace("return x > mean", f"return 1.0 / (x - x) > 0.0 if x == {bars.close[first]!r} else x > mean")
    fragile = load_strategy(written(tmp_path, text.replace("np.float64", "float")))
    with pytest.raises(Failure, match=rf"raised ZeroDivisionError at bar {first} ") as told:
        scan(fragile, bars, {}, TERMS)
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    place = traceback.extract_tb(told.value.__cause__.__traceback__)[-1]
    assert (Path(place.filename).name, place.name) == ("mine.py", "better")


def test_a_ring_is_never_read_outside_of_itself(tmp_path: Path) -> None:
    wild = load_strategy(written(tmp_path, CROSS.replace("s.seen + 1)", "s.seen + 1 + int(s.mean.past[s.seen]))")))
    with pytest.raises(Failure, match="raised IndexError at bar"):
        scan(wild, walk(), {}, TERMS)


def test_a_grid_answers_in_its_order_and_a_set_that_fails_stops_no_other(tmp_path: Path) -> None:
    text = CROSS.replace("return x > mean", "return 1.0 / (x - x) > 0.0 if mean == 0.0 else x > mean")
    text = text.replace("value(s.mean))", "0.0 if p.bars == 7 else value(s.mean))")
    some = load_strategy(written(tmp_path, text))
    table = [{"bars": bars} for bars in (5, 7, 9)]
    seen: list[int] = []
    five, seven, nine = grid(some, walk(), table, TERMS, threads=2, on_progress=seen.append)
    assert isinstance(seven, Failure)
    assert isinstance(five, Run) and isinstance(nine, Run)
    assert five.stats == scan(some, walk(), {"bars": 5}, TERMS).stats
    assert nine.stats == scan(some, walk(), {"bars": 9}, TERMS).stats
    assert seen == [3]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("return x > mean", "return x ** 2 > mean", r"mine.py:25: x \*\* y gives other bits"),
        ("return x > mean", "return round(x, 2) > mean", "leave the rounding to the ledger"),
        ("return x > mean", "return sum((x, mean)) > mean", "add in a loop"),
        ("@kernel\ndef better", "def better", r"mine.py:23: put @kernel on better"),
        ("s.seen + 1)", "s.seen + 0.5)", r"State.seen must stay int, was 0.5"),
        ("else flat()", "else Target(0.0)", "written out whole"),
        ("else flat()", "else 0.0", r"step must return \(state, Target\), was 0.0"),
        ("long() if", "long(2.0) if", r"exposure must be a float in -1..1, was 2.0"),
        ("return x > mean", "return x / 0.0 > mean", "mine.py:25: raised ZeroDivisionError on bar 0"),
    ],
)
def test_an_author_hears_by_line_what_would_go_wrong(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert faults(load_strategy(written(tmp_path, CROSS))) == []
    broken = load_strategy(written(tmp_path, CROSS.replace(before, after)))
    (told,) = faults(broken)
    assert pytest.raises(AssertionError, match=said).matches(AssertionError(told)), told


def test_our_own_strategies_have_no_faults() -> None:
    assert {name: faults(made) for name, made in BUILT_IN.items()} == {name: [] for name in BUILT_IN}


def test_parameters_out_of_bounds_are_refused_all_at_once_with_the_nearest_name() -> None:
    trend = BUILT_IN["trend_follow"]
    with pytest.raises(BadParams) as told:
        trend.params({"fats": 5, "slow": 9000, "fast": 2.5})
    assert "no parameter 'fats' among fast, slow" in str(told.value)
    assert "did you mean 'fast'" in str(told.value)
    assert "slow must be within 5..800, was 9000" in str(told.value)
    assert "fast must be a whole number, was 2.5" in str(told.value)
    with pytest.raises(BadParams, match="rule between parameters does not hold for fast=50, slow=50"):
        trend.params({"fast": 50, "slow": 50})
    with pytest.raises(BadParams, match="stop_atr must be a number, was nan"):
        trend.params({"stop_atr": math.nan})


def test_numbers_from_json_become_the_kinds_that_the_strategy_compiled_with() -> None:
    params = BUILT_IN["trend_follow"].params({"fast": 10.0, "stop_atr": 3})
    assert (type(params.fast), type(params.stop_atr)) == (int, float)


def test_a_schema_is_plain_data_and_enough_for_a_form() -> None:
    told = BUILT_IN["momentum"].schema()
    assert told["params"]["entry"] == {"type": "int", "default": 20, "low": 5, "high": 400}
    assert (told["name"], told["needs_regime"]) == ("momentum", False)


def test_a_strategy_whose_bounds_do_not_fit_its_parameters_is_refused() -> None:
    class Params(NamedTuple):
        bars: int = 5

    def nothing(*_: Any) -> Any: ...

    with pytest.raises(BadParams, match=r"missing \['bars'\], unknown \['bar'\]"):
        strategy("odd", Params, nothing, nothing, bounds={"bar": (1, 2)}, warmup=lambda p: 0)
    with pytest.raises(BadParams, match=r"bars must be within 10\.\.20, was 5"):
        strategy("odd", Params, nothing, nothing, bounds={"bars": (10, 20)}, warmup=lambda p: 0)


def test_a_file_in_the_users_folder_is_a_strategy_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "strategies"
    written(folder, CROSS)
    written(folder, "nothing", "_draft.py")
    found = load_strategies(folder)
    assert sorted(found) == sorted([*BUILT_IN, "cross"])
    assert isinstance(found["cross"], Strategy)
    assert load_strategies(tmp_path / "nowhere") == BUILT_IN
    written(folder, "import nothing_of_that_name", "broken.py")
    with pytest.raises(NeedsOperator, match=r"broken\.py does not load: ModuleNotFoundError"):
        load_strategies(folder)
    written(folder, "x = 1", "broken.py")
    with pytest.raises(NeedsOperator, match=r"broken\.py must end with `STRATEGY"):
        load_strategies(folder)
    written(folder, CROSS, "broken.py")
    with pytest.raises(NeedsOperator, match=r"the name 'cross' is taken"):
        load_strategies(folder)
    with pytest.raises(NeedsOperator, match="Did you mean 'momentum'"):
        find_strategy("momentun")


@pytest.mark.parametrize(
    ("column", "worth", "said"),
    [
        ("close", math.nan, "a finite price above 0"),
        ("high", math.inf, "a finite price above 0"),
        ("low", -1.0, "a finite price above 0"),
        ("high", 90.0, "high >= low"),
        ("volume", -1.0, "a finite volume >= 0"),
        ("opened_at_ms", 0, "a later time than the bar before"),
    ],
)
def test_a_bar_that_is_none_is_refused_by_its_place(column: str, worth: float, said: str) -> None:
    good = {name: values.copy() for name, values in vars(walk(10)).items()}
    good[column][3] = worth
    with pytest.raises(BadMessage, match=rf"Bar 3 \(1970-01-01 .*must have {said}"):
        Columns.of(**good)


def test_bars_are_named_by_their_content() -> None:
    assert walk().sha256() == walk().sha256()
    assert walk().part(0, 399).sha256() != walk().sha256()
    assert len(walk().between(60_000, 180_000)) == 3
    read_only = walk().close
    read_only.flags.writeable = False
    bars = walk()
    assert Columns.of(bars.opened_at_ms, bars.open, bars.high, bars.low, read_only, bars.volume).close.flags.writeable


def test_a_strategy_that_needs_a_regime_trades_only_where_there_is_one(tmp_path: Path) -> None:
    text = CROSS.replace("better(bar.close, value(s.mean))", "regime.bull > 0.5")
    moody = load_strategy(
        written(tmp_path, text.replace("warmup=lambda p: p.bars", "warmup=lambda p: 0, needs_regime=True"))
    )
    bull = np.where(np.arange(400) // 50 % 2 == 0, 0.8, 0.1)
    bull[:120] = math.nan
    run = scan(moody, walk(), {}, TERMS, regimes=(bull, 0.9 - bull, np.full(400, 0.1)), with_fills=True)
    assert run.fills is not None
    assert run.fills[:, 0].tolist() == [121, 151, 201, 251, 301, 351]
    assert scan(moody, walk(), {}, TERMS).stats.fills == 0
    with pytest.raises(NeedsOperator, match="one value for each of the 400 bars"):
        scan(moody, walk(), {}, TERMS, regimes=(bull[1:], bull[1:], bull[1:]))


def test_a_compiled_strategy_is_compiled_once() -> None:
    scan(BUILT_IN["momentum"], walk(), {}, TERMS)
    loop = compiled_loop(BUILT_IN["momentum"])
    scan(BUILT_IN["momentum"], walk().part(5, 300), {"entry": 30}, TERMS)
    assert compiled_loop(BUILT_IN["momentum"]) is loop


def test_a_strategy_whose_file_has_moved_is_found_and_compiled_as_before(tmp_path: Path) -> None:
    text = CROSS.replace("warmup=lambda p: p.bars", "warmup=lambda p: p.bars, needs_regime=True")
    code = (
        "import sys; from pathlib import Path; import numpy as np; from trimtab import *; from decimal import Decimal\n"
        "n = np.full(9, 100.0); bars = Columns.of(np.arange(9) * 60_000, n, n, n, n, n)\n"
        "btc = Instrument(symbol='BTC-USDT', base='BTC', quote='USDT', tick=Decimal('0.01'), lot=Decimal('0.001'))\n"
        "terms = Terms(btc, '1m', Costs(fee_bps=1, slippage_bps=1), Decimal(100))\n"
        "print(scan(load_strategy(Path(sys.argv[1])), bars, {}, terms).figures.trades)\n"
    )
    for folder in ("here", "there"):
        file = written(tmp_path / folder, text)
        told = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, str(file)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=Path(__file__).parents[3],
        )
        assert (told.stdout.strip(), told.stderr) == ("0", ""), told.stderr
