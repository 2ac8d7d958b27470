"""Scanner, then {KIND}_SYMBOLS, then STRATEGY_SYMBOLS, then TRADE_SYMBOLS: the whole truth table."""

import itertools

import pytest

from services.ingester.settings import IngesterSettings
from services.ingester.symbols import DEFAULT, canonical, resolve
from shared.contracts.errors import BadMessage, NeedsOperator

LISTS = (
    ("scanner", "SOL-USDT"),
    ("kind_symbols", "ETH-USDT"),
    ("strategy_symbols", "BNB-USDT"),
    ("trade_symbols", "BTC-USDT"),
)


@pytest.mark.parametrize("given", list(itertools.product([True, False], repeat=4)))
def test_the_first_list_that_names_any_symbol_wins(given: tuple[bool, ...]) -> None:
    present = [(source, symbol) for (source, symbol), there in zip(LISTS, given, strict=True) if there]
    universe = resolve(*([symbol] if there else [] for (_, symbol), there in zip(LISTS, given, strict=True)))
    source, symbol = present[0] if present else ("default", None)
    assert universe.source == source
    assert universe.symbols == (DEFAULT if symbol is None else (symbol,))


def test_the_same_truth_table_holds_for_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADE_SYMBOLS", "BTCUSDT, BTC/USDT, eth-usdt".upper())
    assert IngesterSettings.load().universe == (("BTC-USDT", "ETH-USDT"), "trade_symbols")
    monkeypatch.setenv("STRATEGY_SYMBOLS", "BNB-USDT")
    assert IngesterSettings.load().universe == (("BNB-USDT",), "strategy_symbols")
    monkeypatch.setenv("TREND_SYMBOLS", "SOL-USDT")
    assert IngesterSettings.load(kind="trend").universe == (("SOL-USDT",), "kind_symbols")
    assert IngesterSettings.load(kind="trend", scanner_symbols="LTC-USDT").universe == (("LTC-USDT",), "scanner")


@pytest.mark.parametrize("name", ["BTC-USDT", "BTC/USDT", "BTCUSDT"])
def test_a_symbol_may_be_written_as_people_write_it(name: str) -> None:
    assert canonical(name) == "BTC-USDT"


def test_a_symbol_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(BadMessage, match="Expected a symbol that ends in one of"):
        resolve([], [], [], ["HELLO"])


def test_an_unknown_setting_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(NeedsOperator, match="Did you mean 'history_bars'"):
        IngesterSettings.load(history_bar=5)
