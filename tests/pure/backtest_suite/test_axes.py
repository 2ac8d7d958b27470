"""What a grid tries: every combination that the strategy takes, and a clear word for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backtest_suite.axes import axes_of, params_of, table_of
from shared.contracts.errors import NeedsOperator
from shared.trading.strategies import BUILT_IN
from shared.trading.strategy import BadParams

TREND = BUILT_IN["trend_follow"]


def test_a_range_includes_its_stop_when_a_step_meets_it() -> None:
    assert axes_of(["fast=5:20:5"]) == {"fast": (5, 10, 15, 20)}
    assert axes_of(["fast=5:21:5"]) == {"fast": (5, 10, 15, 20)}
    assert axes_of(["stop_atr=0.1:0.3:0.1"]) == {"stop_atr": (0.1, 0.2, 0.3)}  # in floats 0.1 + 0.2 is beyond 0.3
    assert axes_of(["fast=3:5"]) == {"fast": (3, 4, 5)}
    assert axes_of(["fast=5,10,7", "turns=true,false"]) == {"fast": (5, 10, 7), "turns": (True, False)}


@given(start=st.integers(0, 50), steps=st.integers(0, 20), step=st.integers(1, 9))
def test_a_range_is_what_it_says(start: int, steps: int, step: int) -> None:
    axes = axes_of([f"fast={start}:{start + steps * step}:{step}"])
    assert axes == {"fast": tuple(range(start, start + steps * step + 1, step))}


@pytest.mark.parametrize(
    "text", ["fast", "fast=", "=5", "fast=5:1:1", "fast=5:9:0", "fast=1:2:3:4", "fast=a,b", "fast=nan"]
)
def test_what_is_no_axis_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(NeedsOperator, match=r"fast=5:50:5|start:stop:step|Expected a number"):
        axes_of([text])


def test_each_axis_is_named_once() -> None:
    with pytest.raises(NeedsOperator, match="fast was named again"):
        axes_of(["fast=1,2", "fast=3"])


def test_every_combination_is_tried_except_those_that_break_the_rule() -> None:
    table = table_of(TREND, axes_of(["fast=10,20,30", "slow=20,30"]))
    # fast < slow holds for (10, 20), (10, 30) and (20, 30)
    assert [(one["fast"], one["slow"]) for one in table.sets] == [(10, 20), (10, 30), (20, 30)]
    assert table.rule_broken == 3
    assert all(one["atr_bars"] == 14 for one in table.sets)


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(BadParams, match=r"no parameter 'fsat'.*did you mean 'fast'"):
        table_of(TREND, axes_of(["fsat=5,10"]))


def test_a_value_outside_its_bounds_is_an_error_and_not_skipped() -> None:
    with pytest.raises(BadParams, match=r"fast must be within 2\.\.200, was 500"):
        table_of(TREND, axes_of(["fast=5,500", "slow=700"]))
    with pytest.raises(BadParams, match="fast must be a whole number"):
        table_of(TREND, axes_of(["fast=5.5"]))


def test_a_value_given_twice_and_a_grid_of_nothing_are_errors() -> None:
    with pytest.raises(BadParams, match="must differ"):
        table_of(TREND, {"fast": (5, 5.0)})
    with pytest.raises(BadParams, match="holds for none of 1"):
        table_of(TREND, axes_of(["fast=50", "slow=20"]))
    with pytest.raises(NeedsOperator, match="1 to 5,000,000 combinations"):
        axes_of(["stop_atr=0:1:0.0000001"])


def test_parameters_are_read_as_they_are_said() -> None:
    assert params_of("fast=20, slow=100,stop_atr=2.5") == {"fast": 20, "slow": 100, "stop_atr": 2.5}
    assert params_of("") == {}
    for text in ("fast", "fast=1,fast=2", "fast=x"):
        with pytest.raises(NeedsOperator):
            params_of(text)
