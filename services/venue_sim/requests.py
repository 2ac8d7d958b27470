"""What a client may say: from names and texts to an order request, refused as Binance refuses. And who may say it."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, NamedTuple

from services.venue_sim import refusals
from services.venue_sim.refusals import Refused
from shared.contracts.instruments import Instrument

Side = Literal["BUY", "SELL"]
OrderType = Literal["LIMIT", "LIMIT_MAKER", "MARKET"]
TimeInForce = Literal["GTC", "IOC", "FOK"]
SIDES: dict[str, Side] = {"BUY": "BUY", "SELL": "SELL"}
ORDER_TYPES: dict[str, OrderType] = {"LIMIT": "LIMIT", "LIMIT_MAKER": "LIMIT_MAKER", "MARKET": "MARKET"}
TIMES_IN_FORCE: dict[str, TimeInForce] = {"GTC": "GTC", "IOC": "IOC", "FOK": "FOK"}

NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
INTEGER = re.compile(r"[0-9]{1,20}")
CLIENT_ID = re.compile(r"[a-zA-Z0-9-_]{1,36}")
DECIMALS = 8  # of every price and quantity on the wire
MAX_NOTIONAL = Decimal(9_000_000)  # quote units; Binance's NOTIONAL filter for USDT pairs
MAX_QUANTITY = Decimal(9_000_000)  # base units
MAX_PRICE = Decimal(1_000_000)
RECEIVE_WINDOW_MS = 5000  # Binance's default
LARGEST_WINDOW_MS = 60_000
EARLIEST_MS = 1000  # how far a client's clock may be ahead


class OrderRequest(NamedTuple):
    """An order that passed the symbol's filters, except those that need the price of now."""

    side: Side
    type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    price: Decimal  # 0 for a market order
    client_id: str  # "" when the client gave none


def order_request(sent: Mapping[str, str], instrument: Instrument) -> OrderRequest:
    """The order in these parameters. Raises Refused on what Binance refuses."""
    side = SIDES.get(text(sent, "side"))
    if side is None:
        raise Refused(refusals.UNKNOWN_SIDE)
    kind = ORDER_TYPES.get(text(sent, "type"))
    if kind is None:
        raise Refused(refusals.UNKNOWN_ORDER_TYPE)
    client_id = sent.get("newClientOrderId", "")
    if client_id and not CLIENT_ID.fullmatch(client_id):
        raise refusals.illegal("newClientOrderId", "^[a-zA-Z0-9-_]{1,36}$")
    time_in_force: TimeInForce = "GTC"
    price = Decimal(0)
    if kind == "MARKET":
        for name in ("price", "timeInForce"):
            if name in sent:
                raise refusals.unneeded(name)
    else:
        price = number(sent, "price")
        if kind == "LIMIT":
            known = TIMES_IN_FORCE.get(text(sent, "timeInForce"))
            if known is None:
                raise Refused(refusals.UNKNOWN_TIME_IN_FORCE)
            time_in_force = known
        elif "timeInForce" in sent:
            raise refusals.unneeded("timeInForce")
        check_price(price, instrument)
    quantity = number(sent, "quantity")
    check_quantity(quantity, instrument)
    if price:
        check_notional(quantity * price, instrument)
    return OrderRequest(side, kind, time_in_force, quantity, price, client_id)


def check_price(price: Decimal, instrument: Instrument) -> None:
    if not instrument.tick <= price <= MAX_PRICE or price % instrument.tick:
        raise refusals.filter_failure("PRICE_FILTER")


def check_quantity(quantity: Decimal, instrument: Instrument) -> None:
    if not instrument.lot <= quantity <= MAX_QUANTITY or quantity % instrument.lot:
        raise refusals.filter_failure("LOT_SIZE")


def check_notional(notional: Decimal, instrument: Instrument) -> None:
    if not instrument.min_notional <= notional <= MAX_NOTIONAL:
        raise refusals.filter_failure("NOTIONAL")


def text(sent: Mapping[str, str], name: str) -> str:
    """A parameter that must be there."""
    if not sent.get(name):
        raise refusals.missing(name)
    return sent[name]


def number(sent: Mapping[str, str], name: str) -> Decimal:
    """A decimal number that must be there, with at most eight decimals."""
    given = text(sent, name)
    if not NUMBER.fullmatch(given):
        raise refusals.illegal(name, r"^([0-9]{1,20})(\.[0-9]{1,20})?$")
    _, _, decimals = given.partition(".")
    if len(decimals.rstrip("0")) > DECIMALS:
        raise refusals.too_precise(name)
    return Decimal(given)


def integer(sent: Mapping[str, str], name: str) -> int | None:
    """A whole number that may be there."""
    given = sent.get(name)
    if given is None:
        return None
    if not INTEGER.fullmatch(given):
        raise refusals.illegal(name, "^[0-9]{1,20}$")
    return int(given)


def limit(sent: Mapping[str, str], largest: int = 1000, default: int = 500) -> int:
    """How many rows to answer with: what was asked, silently at most `largest`, as Binance does."""
    asked = integer(sent, "limit")
    if asked == 0:
        raise refusals.missing("limit")
    return default if asked is None else min(asked, largest)


class Keys(NamedTuple):
    """The one account's API key and secret."""

    key: str
    secret: str

    def check(self, key: str | None, signed: str, signature: str | None, sent: Mapping[str, str], wall_ms: int) -> None:
        """Refuse who is not the account, or not of now.

        `signed` is the raw text under the signature (not a parsed one: order and escapes count), `wall_ms` the
        server's own clock, which has nothing to do with market time.
        """
        if not key:
            raise Refused(refusals.NO_KEY)
        if key != self.key:
            raise Refused(refusals.UNKNOWN_KEY)
        timestamp = integer(sent, "timestamp")
        if timestamp is None:
            raise refusals.missing("timestamp")
        if not signature:
            raise refusals.missing("signature")
        expected = hmac.new(self.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise Refused(refusals.BAD_SIGNATURE)
        window = integer(sent, "recvWindow")
        window = RECEIVE_WINDOW_MS if window is None else window
        if window > LARGEST_WINDOW_MS:
            raise Refused(refusals.BAD_WINDOW)
        if timestamp >= wall_ms + EARLIEST_MS:
            raise Refused(refusals.TOO_EARLY)
        if wall_ms - timestamp > window:
            raise Refused(refusals.TOO_OLD)
