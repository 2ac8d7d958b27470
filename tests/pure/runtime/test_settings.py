"""What the environment says to a service, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.backtest_suite.settings import BacktestSettings
from shared.runtime.settings import strategies_folder


def test_the_folder_of_strategies_is_not_a_list_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_STRATEGIES", "/srv/mine")

    assert strategies_folder() == Path("/srv/mine")
    assert BacktestSettings.load().strategies == ("momentum", "trend_follow")


def test_names_of_strategies_have_variables_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADE_STRATEGIES", "momentum")
    assert BacktestSettings.load().strategies == ("momentum",)

    monkeypatch.setenv("TRIMTAB_BACKTEST_SUITE_STRATEGIES", "trend_follow")
    assert BacktestSettings.load().strategies == ("trend_follow",)
