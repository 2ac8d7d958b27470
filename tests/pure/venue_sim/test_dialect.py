"""Our answers have Binance's fields, each with its JSON type, by its own message examples."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.venue_sim import dialect
from services.venue_sim.exchange import Costs, Exchange
from services.venue_sim.market import SimulatedSeries
from services.venue_sim.requests import OrderRequest

SERIES = SimulatedSeries("BTC-USDT", 7)
BAR = SERIES.candle(0)
MINUTE = 60_000
NESTED_THAT_MAY_BE_EMPTY = {"rateLimits", "filters", "exchangeFilters", "sors", "permissions"}


@pytest.fixture(scope="module")
def examples(test_data: Path) -> dict[str, Any]:
    """Name of a spot example -> the message."""
    with gzip.open(test_data / "exchange_recordings" / "binance_message_examples.json.gz") as file:
        found = json.load(file)
    return {Path(name).stem: message for name, message in found.items() if "spot" in name and "futures" not in name}


def differences(ours: Any, example: Any, where: str = "") -> list[str]:
    """Where our message is not made like the example: a field too many or too few, or of another JSON type."""
    if ours is None or example is None:
        return []  # a field that may be null is null in one of them
    if type(ours) is not type(example):
        return [f"{where}: {type(ours).__name__} instead of {type(example).__name__}"]
    if isinstance(ours, dict):
        keys = [f"{where}.{key}: only in one" for key in sorted(ours.keys() ^ example.keys())]
        return keys + [
            found
            for key in ours.keys() & example.keys()
            for found in differences(ours[key], example[key], f"{where}.{key}")
        ]
    if isinstance(ours, list):
        if where.rpartition(".")[2] in NESTED_THAT_MAY_BE_EMPTY:
            return []  # compared where the example fills them
        if where == "kline":
            return [
                d for at, pair in enumerate(zip(ours, example, strict=True)) for d in differences(*pair, f"kline[{at}]")
            ]
        return differences(ours[0], example[0], f"{where}[0]") if ours and example else []
    return []


def as_sent(message: Any) -> Any:
    return json.loads(msgspec.json.encode(message))


@pytest.fixture
def traded() -> Exchange:
    """An account with a filled market order (1) and a canceled limit order (2)."""
    costs = Costs(maker_fee_bps=Decimal(10), taker_fee_bps=Decimal(10), slippage_bps=Decimal(5))
    exchange = Exchange([SERIES.instrument], {"USDT": Decimal(10_000)}, costs)
    exchange.place("BTC-USDT", OrderRequest("BUY", "MARKET", "GTC", Decimal("0.1"), Decimal(0), "a"), BAR, 0)
    resting, _ = exchange.place(
        "BTC-USDT", OrderRequest("BUY", "LIMIT", "GTC", Decimal("0.1"), Decimal(30_000), "b"), BAR, 0
    )
    exchange.cancel(resting, 1)
    return exchange


def test_answers_about_the_account_are_made_like_binances(examples: dict[str, Any], traded: Exchange) -> None:
    filled, canceled, trade = traded.orders[1], traded.orders[2], traded.trades[1]
    for ours, name in (
        (dialect.account(traded, 0), "account_response"),
        (dialect.new_order(filled, trade), "new_order_full_response"),
        (dialect.queried_order(filled), "order_response"),
        ([dialect.queried_order(filled)], "open_orders_response"),
        ([dialect.queried_order(filled)], "all_orders_response"),
        (dialect.canceled_order(canceled), "cancel_order_response"),
        ([dialect.canceled_order(canceled)], "cancel_open_orders_response"),
        ([dialect.account_trade(trade)], "account_trades_response"),
    ):
        assert differences(as_sent(ours), examples[name]) == [], name


def test_answers_about_the_market_are_made_like_binances(examples: dict[str, Any], traded: Exchange) -> None:
    bid, ask = Decimal(59_999), Decimal(60_001)
    for ours, name in (
        (dialect.server_time(1), "server_time_response"),
        (dialect.exchange_info([SERIES.instrument], 1), "exchange_info_response"),
        (dialect.ticker_price("BTC-USDT", 60_000.0), "ticker_price_response"),
        (dialect.book_ticker("BTC-USDT", bid, ask), "book_ticker_response"),
        (dialect.ticker_24h("BTC-USDT", [BAR], 60_000.0, bid, ask, MINUTE, 0), "ticker_24hr_response"),
    ):
        assert differences(as_sent(ours), examples[name]) == [], name
    assert differences(as_sent(dialect.kline(BAR, MINUTE)), examples["klines_response"][0], "kline") == []


def test_the_filters_are_written_like_binances(examples: dict[str, Any]) -> None:
    real = {each["filterType"]: each for each in examples["http_spot_market_exchange_info"]["symbols"][0]["filters"]}
    [symbol] = dialect.exchange_info([SERIES.instrument], 1)["symbols"]
    ours = {each["filterType"]: each for each in symbol["filters"]}
    assert differences(ours["PRICE_FILTER"], real["PRICE_FILTER"]) == []
    assert differences(ours["LOT_SIZE"], real["LOT_SIZE"]) == []
    assert ours["PRICE_FILTER"]["tickSize"] == real["PRICE_FILTER"]["tickSize"]  # this is BTCUSDT in both
    assert ours["LOT_SIZE"]["stepSize"] == real["LOT_SIZE"]["stepSize"]


def test_the_user_stream_speaks_like_binances(examples: dict[str, Any], traded: Exchange) -> None:
    filled, canceled, trade = traded.orders[1], traded.orders[2], traded.trades[1]
    new = {"subscriptionId": 0, "event": dialect.execution_report(canceled, None, "NEW", 1, 0)}
    assert differences(as_sent(new), examples["execution_report_wrapped"]) == []
    position = {"subscriptionId": 0, "event": dialect.account_position(traded.balances, 0)}
    assert differences(as_sent(position), examples["account_position_wrapped"]) == []
    # The other examples leave out W and V, which the wrapped one has.
    for ours, name in (
        (dialect.execution_report(filled, trade, "TRADE", 2, 0), "ws_spot_execution_report_trade"),
        (dialect.execution_report(canceled, None, "CANCELED", 3, 0), "ws_spot_execution_report_canceled"),
        (dialect.execution_report(canceled, None, "EXPIRED", 4, 0), "ws_spot_execution_report_expired"),
    ):
        found = differences(as_sent(ours), examples[name]["data"])
        assert set(found) <= {".V: only in one", ".W: only in one"}, name


def test_a_candle_frame_is_made_like_a_recorded_one(test_data: Path) -> None:
    with gzip.open(test_data / "exchange_recordings" / "binance_spot_2021-10-12.jsonl.gz", "rt") as file:
        frames = [json.loads(row["body"]) for row in map(json.loads, file) if "@kline_1m" in row.get("body", "")]
    events = [frame["data"] for frame in frames if str(frame.get("stream", "")).endswith("@kline_1m")]
    assert events
    ours = as_sent(dialect.kline_event("BTC-USDT", "1m", BAR, MINUTE, BAR.opened_at + MINUTE, is_closed=True))
    for event in events:
        assert differences(ours, event) == []


def test_an_amount_is_never_written_with_an_exponent() -> None:
    assert dialect.amount(Decimal("1E-8")) == "0.00000001" and dialect.amount(1e16) == "10000000000000000.00000000"
