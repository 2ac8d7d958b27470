"""A strategy over many instruments is one file like any other, and is refused in words where it cannot be hosted."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from services.answers import show_strategies
from shared.contracts.errors import NeedsOperator
from shared.trading.strategies import (
    BUILT_IN_PORTFOLIOS,
    find_strategy,
    load_all,
    load_any,
    load_strategies,
    load_strategy,
)
from tests.pure.trading.portfolio.markets import FREE, Told, instrument, market_of
from trimtab import PortfolioRun, PortfolioStrategy, PortfolioTerms, faults, scan_portfolio

EVEN = '''
"""Everything in equal parts."""

from typing import NamedTuple

from trimtab import Market, Regime, kernel, portfolio_strategy


class Params(NamedTuple):
    every: int = 5  # bars


class State(NamedTuple):
    seen: int


@kernel
def start(p: Params, instruments: int) -> State:
    return State(0)


@kernel
def step(s: State, market: Market, regime: Regime, p: Params, weights: list[float]) -> tuple[State, bool]:
    for k in range(len(weights)):
        weights[k] = 1.0 / len(weights) if market.close[k] > 0.0 else 0.0
    return State(s.seen + 1), s.seen % p.every == 0


STRATEGY = portfolio_strategy("even", Params, start, step, bounds={"every": (1, 100)}, warmup=lambda p: 0)
'''


def written(folder: Path, text: str = EVEN) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "even.py"
    file.write_text(text)
    return file


def run(strategy: PortfolioStrategy) -> PortfolioRun:
    rng = np.random.default_rng(2)
    walks = [[Told(x, x) for x in 100.0 * np.exp(np.cumsum(rng.normal(0, 0.05, 40)))] for _ in range(3)]
    market = market_of(*walks)
    terms = PortfolioTerms(tuple(map(instrument, market.symbols)), "1h", FREE, Decimal(10_000))
    return scan_portfolio(strategy, market, {}, terms, with_curve=True)


def test_a_file_of_the_users_folder_can_trade_a_portfolio(tmp_path: Path) -> None:
    written(tmp_path)
    made = load_all(tmp_path)["even"]
    assert isinstance(made, PortfolioStrategy)
    assert faults(made) == []
    assert run(made).stats.fills > 10
    assert made.schema()["instruments"] == {"least": 1, "most": 100_000}


def test_the_portfolio_strategy_in_the_docs_is_one(tmp_path: Path) -> None:
    docs = Path(__file__).parents[4] / "docs" / "strategies.md"
    (text,) = re.findall(r"```python\n(\"\"\"Everything that has.*?)```", docs.read_text(encoding="utf-8"), re.DOTALL)
    made = load_any(written(tmp_path, text))
    assert isinstance(made, PortfolioStrategy)
    assert faults(made) == []
    assert run(made).stats.fills == 6  # three bought at once, and put right at bar 21


def test_what_hosts_one_instrument_is_never_given_a_portfolio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path)
    assert {"even", *BUILT_IN_PORTFOLIOS}.isdisjoint(load_strategies(tmp_path))
    monkeypatch.setenv("TRIMTAB_STRATEGIES", str(tmp_path))
    for name in ("pairs", "even"):
        with pytest.raises(
            NeedsOperator, match=f"{name}: it trades a portfolio: .*nothing that trades one instrument can"
        ):
            find_strategy(name)
    with pytest.raises(NeedsOperator, match=r"even\.py: it trades a portfolio"):
        load_strategy(file)
    assert load_any(file).name == "even"


def test_the_listing_shows_them_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path)
    monkeypatch.setenv("TRIMTAB_STRATEGIES", str(tmp_path))
    show_strategies(as_json=True)
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"momentum", "pairs", "cross_sectional_momentum", "even"} <= set(told)
    assert told["pairs"]["instruments"] == {"least": 2, "most": 2}
    assert "instruments" not in told["momentum"]
    show_strategies(as_json=False)
    assert "pairs (over 2 instruments)" in capsys.readouterr().out


def test_one_that_does_not_compile_runs_slower_and_gives_the_same(tmp_path: Path) -> None:
    quick = load_any(written(tmp_path / "quick"))
    slow = load_any(
        written(tmp_path / "slow", EVEN.replace("> 0.0 else", "> 0.0 and type(s).__name__ == 'State' else"))
    )
    assert isinstance(quick, PortfolioStrategy) and isinstance(slow, PortfolioStrategy)
    with pytest.warns(UserWarning, match="even does not compile and runs interpreted"):
        told = run(slow)
    assert told.stats == run(quick).stats
    assert np.array_equal(told.curve, run(quick).curve)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("1.0 / len(weights)", "1.0", "weights must add up to 1 at most"),
        ("else 0.0", "else 0", "weights must be floats"),
        ("s.seen % p.every == 0\n", "0\n", r"step must return \(state, bool\), was 0"),
        ("State(s.seen + 1)", "State(s.seen + 0.5)", "State.seen must stay int, was 0.5"),
        ("1.0 / len(weights)", "1.0 / (market.close[0] - market.close[0])", "even.py:25: raised ZeroDivisionError"),
        ("1.0 / len(weights)", "sum(weights)", "even.py:25: built-in sum"),
    ],
)
def test_an_author_hears_by_line_what_would_go_wrong(tmp_path: Path, before: str, after: str, said: str) -> None:
    (told,) = faults(load_any(written(tmp_path, EVEN.replace(before, after))))
    assert pytest.raises(AssertionError, match=said).matches(AssertionError(told)), told
