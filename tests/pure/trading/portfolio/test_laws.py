"""What holds for every market, every strategy over it and all terms: the same bits, conserved money, no look-ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.trading.columns import MarketColumns
from shared.trading.compiled.portfolios import PortfolioTerms, execute_weights, scan_portfolio
from shared.trading.compiled.weights import stepped_weights
from shared.trading.kernel import same
from shared.trading.strategies import BUILT_IN_PORTFOLIOS
from tests.pure.trading.portfolio.markets import (
    RESTLESS,
    RESTLESS_PAIR,
    Kind,
    any_market,
    any_terms,
    interpreted,
    last_marks,
)

EVERY = {**BUILT_IN_PORTFOLIOS, RESTLESS.name: RESTLESS, RESTLESS_PAIR.name: RESTLESS_PAIR}
RESTLESS_PARAMS = st.fixed_dictionaries(
    {"every": st.integers(1, 5), "size": st.floats(0.0, 1.0), "turns": st.booleans()}
)
# Small parameters, so that a hundred bars hold many trades.
QUICK: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "cross_sectional_momentum": st.fixed_dictionaries(
        {"bars": st.integers(1, 9), "top": st.integers(1, 4), "every": st.integers(1, 6)}
    ),
    "pairs": st.fixed_dictionaries(
        {
            "bars": st.integers(3, 12),
            "enter": st.floats(0.6, 1.2),
            "exit": st.floats(0.0, 0.5),
            "stop": st.floats(1.5, 3.0),
        }
    ),
    "restless_portfolio": RESTLESS_PARAMS,
    "restless_pair": RESTLESS_PARAMS,
}


@st.composite
def any_case(draw: st.DrawFn, name: str) -> tuple[MarketColumns, dict[str, Any], PortfolioTerms]:
    least, most = (2, 2) if "pair" in name else (1, 6)
    market = draw(any_market(least, most))
    kinds: tuple[Kind, ...] = ("perpetual",) if name == "pairs" else ("spot", "perpetual", "share")
    return market, draw(QUICK[name]), draw(any_terms(market.symbols, kinds))


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_strategy_over_many_does_the_same_compiled_and_interpreted(name: str, data: st.DataObject) -> None:
    market, params, terms = data.draw(any_case(name))
    run = scan_portfolio(EVERY[name], market, params, terms, with_curve=True, with_fills=True)
    plain = interpreted(EVERY[name], market, params, terms)
    assert same((run.account, run.stats), (plain.account, plain.stats))
    assert run.legs == plain.legs
    assert np.array_equal(run.curve, plain.curve)
    assert np.array_equal(run.fills, plain.fills)
    assert np.array_equal(run.charges, plain.charges)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_weights_that_were_decided_before_earn_the_same_bits(name: str, data: st.DataObject) -> None:
    market, params, terms = data.draw(any_case(name))
    made = EVERY[name]
    one = scan_portfolio(made, market, params, terms, with_curve=True, with_fills=True)
    decided, failure = stepped_weights(made, made.params(params), market, [np.array([np.nan])] * 3)
    assert failure is None
    first = made.warmup(made.params(params)) - 1
    options: dict[str, Any] = {"with_curve": True, "with_fills": True, "is_one_intent": made.is_one_intent}
    two = execute_weights(decided, market, terms, trade_from=max(first, 0), **options)
    assert (one.account, one.stats, one.legs) == (two.account, two.stats, two.legs)
    assert np.array_equal(one.curve, two.curve)
    assert np.array_equal(one.fills, two.fills)
    assert np.array_equal(one.charges, two.charges)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_money_is_conserved_at_every_event(name: str, data: st.DataObject) -> None:
    market, params, terms = data.draw(any_case(name))
    run = scan_portfolio(EVERY[name], market, params, terms, with_curve=True, with_fills=True)
    assert run.fills is not None and run.curve is not None
    begun = run.scales[0].units(terms.cash)
    are_spot = all(each.kind == "spot" for each in terms.instruments)

    assert run.charges is not None
    paid = np.zeros(len(market), np.int64)
    np.add.at(paid, run.charges[:, 0], run.charges[:, 2])
    cash, lots, fees = begun, [0] * len(market.symbols), 0
    fills = iter([*run.fills.tolist(), [len(market), 0, 0, 0, 0]])
    bar, k, bought, ticks, fee = next(fills)
    for i, marks in enumerate(last_marks(market, run)):
        while bar == i:
            cash -= bought * ticks * run.scales[k].unit + fee
            lots[k] += bought
            fees += fee
            assert not are_spot or lots[k] >= 0
            bar, k, bought, ticks, fee = next(fills)
        cash -= int(paid[i])
        assert not are_spot or cash >= 0
        worth = sum(held * mark * scale.unit for held, mark, scale in zip(lots, marks, run.scales, strict=True))
        assert run.curve[i] == cash + worth

    assert (run.account.cash, run.account.fees, run.legs.lots) == (cash, fees, lots)
    assert run.stats.charges == paid.sum()
    assert run.stats.profit - run.stats.loss + sum(run.legs.flow) == cash - begun


@settings(max_examples=60, deadline=None)
@given(data=st.data(), cut=st.floats(0.0, 1.0), factor=st.floats(0.5, 2.0))
def test_changing_the_future_changes_no_past_decision(data: st.DataObject, cut: float, factor: float) -> None:
    name = data.draw(st.sampled_from(sorted(EVERY)))
    market, params, terms = data.draw(any_case(name))
    known = max(1, int(cut * len(market)))
    changes = np.where(np.arange(len(market)) < known, 1.0, factor)[:, None]
    open, high, low, close = (table * changes for table in (market.open, market.high, market.low, market.close))
    other = replace(market, open=open, high=high, low=low, close=close)

    one = scan_portfolio(EVERY[name], market, params, terms, with_curve=True, with_fills=True)
    assert one.curve is not None and one.fills is not None
    for changed in (other, market.part(0, known)):
        run = scan_portfolio(EVERY[name], changed, params, terms, with_curve=True, with_fills=True)
        assert run.curve is not None and run.fills is not None
        assert np.array_equal(one.curve[:known], run.curve[:known])
        assert np.array_equal(one.fills[one.fills[:, 0] < known], run.fills[run.fills[:, 0] < known])
        assert one.charges is not None and run.charges is not None
        assert np.array_equal(one.charges[one.charges[:, 0] < known], run.charges[run.charges[:, 0] < known])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nothing_depends_on_the_order_in_which_the_instruments_stand(data: st.DataObject) -> None:
    market, params, terms = data.draw(any_case("restless_portfolio"))
    order = data.draw(st.permutations(range(len(market.symbols))))
    symbols = tuple(market.symbols[k] for k in order)
    tables = (table[:, order].copy() for table in market.all()[1:])
    other = MarketColumns(symbols, market.opened_at_ms, *tables)
    others_terms = replace(terms, instruments=tuple(terms.instruments[k] for k in order))

    one = scan_portfolio(RESTLESS, market, params, terms, with_curve=True, with_fills=True)
    two = scan_portfolio(RESTLESS, other, params, others_terms, with_curve=True, with_fills=True)

    assert one.fills is not None and two.fills is not None
    assert one.account._replace(held=0) == two.account._replace(held=0)
    assert one.stats == two.stats
    assert np.array_equal(one.curve, two.curve)
    named = [(bar, order[k], *rest) for bar, k, *rest in two.fills.tolist()]
    assert sorted(named) == sorted(map(tuple, one.fills.tolist()))
