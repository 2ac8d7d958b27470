"""What the venue says when it says no: Binance's codes and words, so that ccxt raises what it would raise there.

Source: https://developers.binance.com/docs/binance-spot-api-docs/errors
"""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """One way to say no. `status` is the HTTP status."""

    code: int
    message: str
    status: int = 400


class Refused(Exception):
    """The request changed nothing, for this reason."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code} {refusal.message}")
        self.refusal = refusal


def missing(name: str) -> Refused:
    return Refused(Refusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."))


def illegal(name: str, legal: str) -> Refused:
    return Refused(Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."))


def unneeded(name: str) -> Refused:
    return Refused(Refusal(-1106, f"Parameter '{name}' sent when not required."))


def too_precise(name: str) -> Refused:
    return Refused(Refusal(-1111, f"Parameter '{name}' has too much precision."))


def filter_failure(name: str) -> Refused:
    return Refused(Refusal(-1013, f"Filter failure: {name}"))


TOO_OLD = Refusal(-1021, "Timestamp for this request is outside of the recvWindow.")
TOO_EARLY = Refusal(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
BAD_WINDOW = Refusal(-1131, "recvWindow must be less than 60000.")
BAD_SIGNATURE = Refusal(-1022, "Signature for this request is not valid.")
NO_KEY = Refusal(-2014, "API-key format invalid.", status=401)
UNKNOWN_KEY = Refusal(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
UNKNOWN_SYMBOL = Refusal(-1121, "Invalid symbol.")
UNKNOWN_INTERVAL = Refusal(-1120, "Invalid interval.")
UNKNOWN_TIME_IN_FORCE = Refusal(-1115, "Invalid timeInForce.")
UNKNOWN_ORDER_TYPE = Refusal(-1116, "Invalid orderType.")
UNKNOWN_SIDE = Refusal(-1117, "Invalid side.")
MARKET_CLOSED = Refusal(-1013, "Market is closed.")
DUPLICATE_ORDER = Refusal(-2010, "Duplicate order sent.")
NOT_ENOUGH = Refusal(-2010, "Account has insufficient balance for requested action.")
WOULD_TAKE = Refusal(-2010, "Order would immediately match and take.")
UNKNOWN_CANCEL = Refusal(-2011, "Unknown order sent.")
NO_SUCH_ORDER = Refusal(-2013, "Order does not exist.")
