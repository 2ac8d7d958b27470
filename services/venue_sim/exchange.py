"""One account and its orders: pure. Money is Decimal with eight decimals, and every unit of it is conserved.

A market order is filled whole, at the open of the bar that is now open, slipped against the trader. A limit order that
could trade at once is a taker at that price; any other rests and fills at its own price in the first bar that trades
*through* it: a touch is not enough, for others stood before us in the queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Literal

import msgspec

from services.venue_sim import refusals
from services.venue_sim.market import Candle
from services.venue_sim.refusals import Refused
from services.venue_sim.requests import OrderRequest, OrderType, Side, TimeInForce, check_notional
from shared.contracts.instruments import Instrument

ZERO = Decimal(0)
UNIT = Decimal("0.00000001")
BPS = Decimal(10_000)

Status = Literal["NEW", "FILLED", "CANCELED", "EXPIRED"]


class Balance(msgspec.Struct, frozen=True):
    """One asset: what can be used, and what resting orders hold."""

    free: Decimal = ZERO
    locked: Decimal = ZERO


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order and what became of it."""

    id: int
    symbol: str
    client_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    price: Decimal  # 0 for a market order
    status: Status
    executed: Decimal = ZERO  # base units
    spent: Decimal = ZERO  # quote units
    placed_at: int  # ms, market time
    updated_at: int


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One execution."""

    id: int
    order_id: int
    client_id: str
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    is_maker: bool
    at: int  # ms, market time

    @property
    def notional(self) -> Decimal:
        return self.price * self.quantity


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What trading costs, in basis points."""

    maker_fee_bps: Decimal
    taker_fee_bps: Decimal
    slippage_bps: Decimal


class Exchange:
    """Orders in, trades out. The tape says what the prices are; who asks says when it is."""

    def __init__(self, instruments: Iterable[Instrument], balances: dict[str, Decimal], costs: Costs) -> None:
        self.instruments = {each.symbol: each for each in instruments}
        assets = {asset for each in self.instruments.values() for asset in (each.base, each.quote)}
        self.balances = {asset: Balance(free=balances.get(asset, ZERO)) for asset in sorted(assets | balances.keys())}
        self.costs = costs
        self.orders: dict[int, Order] = {}  # oldest first
        self.trades: dict[int, Trade] = {}
        self.open: dict[int, Order] = {}

    def recover(self, balances: dict[str, Balance], orders: Iterable[Order], trades: Iterable[Trade]) -> None:
        """Go on from what was kept."""
        self.balances.update(balances)
        self.orders = {order.id: order for order in orders}
        self.trades = {trade.id: trade for trade in trades}
        self.open = {order.id: order for order in self.orders.values() if order.status == "NEW"}

    def buy_price(self, instrument: Instrument, candle: Candle) -> Decimal:
        """What a market order to buy pays in this open bar, rounded up to the tick."""
        return _slipped(candle.open, 1 + self.costs.slippage_bps / BPS, instrument.tick, ROUND_CEILING)

    def sell_price(self, instrument: Instrument, candle: Candle) -> Decimal:
        """What a market order to sell gets in this open bar, rounded down to the tick."""
        return _slipped(candle.open, 1 - self.costs.slippage_bps / BPS, instrument.tick, ROUND_FLOOR)

    def place(self, symbol: str, wanted: OrderRequest, bar: Candle | None, at: int) -> tuple[Order, Trade | None]:
        """Take an order, and fill it when it can be filled now. `bar` is the one now open; None when the market ended.

        Raises Refused; then nothing has changed.
        """
        instrument = self.instruments[symbol]
        if bar is None:
            raise Refused(refusals.MARKET_CLOSED)
        # Binance: a client id may come again once its order is done, never while it rests.
        if wanted.client_id and any(o.client_id == wanted.client_id and o.symbol == symbol for o in self.open.values()):
            raise Refused(refusals.DUPLICATE_ORDER)
        now = self.buy_price(instrument, bar) if wanted.side == "BUY" else self.sell_price(instrument, bar)
        takes = wanted.type == "MARKET" or (now <= wanted.price if wanted.side == "BUY" else now >= wanted.price)
        if takes and wanted.type == "LIMIT_MAKER":
            raise Refused(refusals.WOULD_TAKE)
        check_notional(wanted.quantity * (now if wanted.type == "MARKET" else wanted.price), instrument)
        needed, asset = (
            (wanted.quantity * (now if takes else wanted.price), instrument.quote)
            if wanted.side == "BUY"
            else (wanted.quantity, instrument.base)
        )
        if needed > self.balances[asset].free:
            raise Refused(refusals.NOT_ENOUGH)
        number = next(reversed(self.orders), 0) + 1
        order = Order(
            id=number,
            symbol=symbol,
            client_id=wanted.client_id or f"sim-{number}",
            side=wanted.side,
            type=wanted.type,
            time_in_force=wanted.time_in_force,
            quantity=wanted.quantity,
            price=wanted.price,
            status="NEW",
            placed_at=at,
            updated_at=at,
        )
        self._move(asset, free=-needed, locked=needed)
        self._keep(order)
        if takes:
            return self._fill(order, now, needed, at, is_maker=False)
        if wanted.time_in_force != "GTC":
            return self._close(order, "EXPIRED", at), None
        return order, None

    def cancel(self, order: Order, at: int) -> Order:
        """Take a resting order back and free what it held. Raises Refused when it does not rest."""
        if order.id not in self.open:
            raise Refused(refusals.UNKNOWN_CANCEL)
        return self._close(order, "CANCELED", at)

    def match(self, symbol: str, bar: Candle, at: int) -> list[tuple[Order, Trade]]:
        """Fill the resting orders that this bar traded through, oldest first."""
        low, high = to_decimal(bar.low), to_decimal(bar.high)
        filled: list[tuple[Order, Trade]] = []
        for order in list(self.open.values()):
            if order.symbol != symbol:
                continue
            if low < order.price if order.side == "BUY" else high > order.price:
                held = order.quantity * order.price if order.side == "BUY" else order.quantity
                filled.append(self._fill(order, order.price, held, at, is_maker=True))
        return filled

    def find(self, symbol: str, order_id: int | None, client_id: str | None) -> Order | None:
        """The order of this id, or the latest one of this client id."""
        if order_id is not None:
            order = self.orders.get(order_id)
            return order if order is not None and order.symbol == symbol else None
        return next(
            (o for o in reversed(self.orders.values()) if o.client_id == client_id and o.symbol == symbol),
            None,
        )

    def _fill(self, order: Order, price: Decimal, held: Decimal, at: int, *, is_maker: bool) -> tuple[Order, Trade]:
        """Execute the whole order; `held` was locked for it. The fee is taken from what comes in, as Binance does."""
        instrument = self.instruments[order.symbol]
        notional = order.quantity * price
        got, gained = (order.quantity, instrument.base) if order.side == "BUY" else (notional, instrument.quote)
        rate = self.costs.maker_fee_bps if is_maker else self.costs.taker_fee_bps
        fee = (got * rate / BPS).quantize(UNIT, ROUND_HALF_UP)
        trade = Trade(
            id=next(reversed(self.trades), 0) + 1,
            order_id=order.id,
            client_id=order.client_id,
            symbol=order.symbol,
            side=order.side,
            price=price,
            quantity=order.quantity,
            fee=fee,
            fee_asset=gained,
            is_maker=is_maker,
            at=at,
        )
        self.trades[trade.id] = trade
        self._move(instrument.quote if order.side == "BUY" else instrument.base, locked=-held)
        self._move(gained, free=got - fee)
        filled = msgspec.structs.replace(order, status="FILLED", executed=order.quantity, spent=notional, updated_at=at)
        return self._keep(filled), trade

    def _close(self, order: Order, status: Status, at: int) -> Order:
        instrument = self.instruments[order.symbol]
        if order.side == "BUY":
            held = order.quantity * order.price
            self._move(instrument.quote, free=held, locked=-held)
        else:
            self._move(instrument.base, free=order.quantity, locked=-order.quantity)
        return self._keep(msgspec.structs.replace(order, status=status, updated_at=at))

    def _keep(self, order: Order) -> Order:
        self.orders[order.id] = order
        if order.status == "NEW":
            self.open[order.id] = order
        else:
            self.open.pop(order.id, None)
        return order

    def _move(self, asset: str, *, free: Decimal = ZERO, locked: Decimal = ZERO) -> None:
        had = self.balances[asset]
        self.balances[asset] = Balance(had.free + free, had.locked + locked)


def to_decimal(value: float) -> Decimal:
    """A price as it is said: eight decimals."""
    return Decimal(f"{value:.8f}")


def _slipped(price: float, factor: Decimal, tick: Decimal, rounding: str) -> Decimal:
    return (to_decimal(price) * factor / tick).to_integral_value(rounding) * tick
