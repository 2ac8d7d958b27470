"""The venue refuses what Binance refuses, with Binance's code."""

import hashlib
import hmac

import pytest

from services.venue_sim.market import SimulatedSeries
from services.venue_sim.refusals import Refused
from services.venue_sim.requests import Keys, limit, order_request

BTC = SimulatedSeries("BTC-USDT", 7).instrument  # tick 0.01, lot 0.00001, at least 5 USDT
LIMIT = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "50000"}
MARKET = {"side": "SELL", "type": "MARKET", "quantity": "0.01"}
NOW = 1_700_000_000_000  # wall clock, ms


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (LIMIT | {"side": "HOLD"}, -1117, "Invalid side"),
        (LIMIT | {"type": "STOP_LOSS"}, -1116, "Invalid orderType"),
        (LIMIT | {"timeInForce": "GTD"}, -1115, "Invalid timeInForce"),
        (LIMIT | {"quantity": ""}, -1102, "'quantity'"),
        ({key: value for key, value in LIMIT.items() if key != "price"}, -1102, "'price'"),
        ({key: value for key, value in LIMIT.items() if key != "timeInForce"}, -1102, "'timeInForce'"),
        ({key: value for key, value in MARKET.items() if key != "side"}, -1102, "'side'"),
        (LIMIT | {"quantity": "-1"}, -1100, "'quantity'"),
        (LIMIT | {"quantity": "1e-3"}, -1100, "'quantity'"),
        (LIMIT | {"quantity": "NaN"}, -1100, "'quantity'"),
        (LIMIT | {"newClientOrderId": "no spaces please"}, -1100, "'newClientOrderId'"),
        (LIMIT | {"newClientOrderId": "x" * 37}, -1100, "'newClientOrderId'"),
        (MARKET | {"price": "50000"}, -1106, "'price'"),
        (LIMIT | {"type": "LIMIT_MAKER"}, -1106, "'timeInForce'"),
        (LIMIT | {"quantity": "0.010000001"}, -1111, "'quantity'"),
        (LIMIT | {"quantity": "0.010001"}, -1013, "LOT_SIZE"),
        (LIMIT | {"quantity": "0"}, -1013, "LOT_SIZE"),
        (LIMIT | {"price": "50000.001"}, -1013, "PRICE_FILTER"),
        (LIMIT | {"price": "2000000"}, -1013, "PRICE_FILTER"),
        (LIMIT | {"quantity": "0.00009"}, -1013, "NOTIONAL"),  # 4.50 USDT
    ],
)
def test_a_wrong_order_is_refused_with_binances_code(sent: dict[str, str], code: int, said: str) -> None:
    with pytest.raises(Refused) as caught:
        order_request(sent, BTC)
    assert caught.value.refusal.code == code and said in caught.value.refusal.message


def test_trailing_zeros_are_no_precision() -> None:
    assert order_request(MARKET | {"quantity": "0.0100000000"}, BTC).quantity == order_request(MARKET, BTC).quantity


def test_a_limit_above_the_largest_is_cut_silently() -> None:
    assert limit({"limit": "2000"}) == 1000 and limit({}) == 500
    with pytest.raises(Refused, match="-1100"):
        limit({"limit": "-5"})


KEYS = Keys("key", "secret")


def signed(text: str, secret: str = "secret") -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("key", "timestamp", "window", "secret", "code"),
    [
        (None, NOW, None, "secret", -2014),
        ("stranger", NOW, None, "secret", -2015),
        ("key", NOW, None, "guessed", -1022),
        ("key", NOW - 5001, None, "secret", -1021),  # 5,000 ms is the window when none is given
        ("key", NOW - 101, 100, "secret", -1021),
        ("key", NOW + 1000, None, "secret", -1021),
        ("key", NOW, 60_001, "secret", -1131),
    ],
)
def test_who_is_not_the_account_or_not_of_now_is_refused(
    key: str | None, timestamp: int, window: int | None, secret: str, code: int
) -> None:
    sent = {"timestamp": str(timestamp)} | ({} if window is None else {"recvWindow": str(window)})
    text = "&".join(f"{name}={value}" for name, value in sent.items())
    with pytest.raises(Refused) as caught:
        KEYS.check(key, text, signed(text, secret), sent, NOW)
    assert caught.value.refusal.code == code


def test_a_request_without_time_or_signature_is_incomplete() -> None:
    for sent, signature in (({}, "00"), ({"timestamp": str(NOW)}, None)):
        with pytest.raises(Refused, match="-1102"):
            KEYS.check("key", "", signature, sent, NOW)


def test_a_request_of_now_by_the_account_is_let_in() -> None:
    text = f"timestamp={NOW - 4999}"
    KEYS.check("key", text, signed(text), {"timestamp": str(NOW - 4999)}, NOW)
