"""From an intent to the venue's answer, once. What was decided is committed before it is sent; what came back is booked once.

An answer that was lost is settled: after the time in which a late order could still be taken, the venue is asked twice
for our id. Unknown both times, the order never arrived and is tried once more under its next id; else it is what the
venue says. Start and recovery are this same path: a kept intent is an order whose answer was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import chain, repeat
from typing import Any, TypeVar

import msgspec

from services.engine.breakers import with_trade
from services.engine.desk import Desk, Sleeve
from services.engine.keeper import Keeper
from services.engine.orders import (
    Order,
    booked_trades,
    find_order,
    is_booked,
    kept_fill,
    kept_order,
    kept_trade,
    open_orders,
    order_id,
)
from services.engine.settings import EngineSettings
from services.engine.venue import Execution, OrderRefused, OutcomeUnknown, Report, Venue
from shared.contracts import subjects
from shared.contracts.errors import BadMessage, TryAgain
from shared.contracts.execution import (
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderRejected,
    OrderSubmitted,
    Signal,
    TradeFill,
)
from shared.contracts.times import to_ms
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.trading.orders import Intent

T = TypeVar("T")

ASK_AGAIN_S = 1.0  # between two questions for an order that the venue does not know
RETRY_S = (0.25, 0.5, 1.0, 2.0, 5.0)


class Executor:
    """Orders of one account at one venue. All but waiting for lost answers happens in the service's turn."""

    def __init__(self, host: Host[EngineSettings], desk: Desk, venue: Venue, keeper: Keeper) -> None:
        self.host, self.desk, self.venue, self.keeper = host, desk, venue, keeper
        self.open: dict[str, Order] = {}
        self._settling: set[str] = set()
        self._booked: dict[str, set[str]] = {}  # open order -> ids of its trades that were booked

    # -- intents -----------------------------------------------------------------------------------------------------

    def intend(self, sleeve: Sleeve, intent: Intent, at: datetime, effects: Effects, leg: str = "") -> Order:
        """Write an order down. It may be sent once this is committed. `leg` tells two of one bar apart."""
        account, decided_ms = self.host.settings.account, to_ms(intent.opened_at)
        order = Order(
            order_id=order_id(account, self.venue.name, sleeve.name, decided_ms, leg, 1),
            sleeve=sleeve.name,
            venue=self.venue.name,
            symbol=sleeve.symbol,
            side=intent.side,
            quantity=intent.quantity,
            reason=intent.reason,
            attempt=1,
            decided_ms=decided_ms,
            leg=leg,
            at=at,
        )
        if not leg:  # what a person or a breaker wants is no wish of the sleeve's, which may have had one on this bar
            self.keeper.say(effects, subjects.SIGNAL, _signal(order, sleeve, intent))
        self._submitted(order, sleeve, intent, effects)
        return order

    async def send(self, orders: Iterable[Order], effects: Effects) -> None:
        """Send what is committed, in order, and book what the venue answers."""
        for order in orders:
            try:
                report = await self.venue.submit(order.ticket)
            except OrderRefused as error:
                self._rejected(order.refused(error.code, error.reason), effects)
            except OutcomeUnknown as error:
                self._lost_answer(order, str(error), effects)
            else:
                await self.take(report, effects)

    def _submitted(self, order: Order, sleeve: Sleeve, intent: Intent | None, effects: Effects) -> None:
        self._keep(order, effects)
        submitted = OrderSubmitted(
            **self._about(order),
            side=order.side,
            kind="market",
            quantity=order.quantity,
            price=None,
            reason=order.reason,
            preset_id=intent.preset_id if intent else "",
            model_id=intent.model_id if intent else "",
            decision_id=intent.decision_id if intent else "",
        )
        self.keeper.say(effects, subjects.ORDER_SUBMITTED, submitted)
        self.keeper.touch(sleeve)

    # -- answers -----------------------------------------------------------------------------------------------------

    async def take(self, report: Report, effects: Effects) -> None:
        """Book what the venue says of an order: new fills, and whether it is done. Said twice, it changes nothing more."""
        order = self.open.get(report.order_id)
        if order is None:
            await self._take_late(report, effects)
            return
        for execution in report.executions:
            order = self._book(order, execution, effects)
        status = report.status
        if status != "open" and order.executed < report.executed:  # the sum is the check, the trades the truth
            try:
                for execution in await self.venue.executions(order.ticket, report.venue_order_id):
                    order = self._book(order, execution, effects)
            except TryAgain as error:  # for us it stays open, and is asked for again
                self.host.log.warning("venue.later", order=order.order_id, error=str(error))
                status = "open"
        if status == "rejected":
            self._rejected(order.refused("rejected", report.reason), effects)
            return
        is_new = order.state in ("intent", "unknown")
        order = order.became(status, report.venue_order_id, report.reason)
        self._keep(order, effects)
        if is_new:
            accepted = OrderAccepted(**self._about(order), venue_order_id=order.venue_order_id)
            self.keeper.say(effects, subjects.ORDER_ACCEPTED, accepted)
        if order.state == "canceled":
            reason = report.reason or "canceled at the venue"
            self.keeper.say(effects, subjects.ORDER_CANCELED, OrderCanceled(**self._about(order), reason=reason))
        elif order.state == "expired":
            reason = report.reason or "the venue let it lapse"
            self.keeper.say(effects, subjects.ORDER_EXPIRED, OrderExpired(**self._about(order), reason=reason))
        if not order.is_open and order.remaining > 0:
            self._came_to_nothing(order)

    async def _take_late(self, report: Report, effects: Effects) -> None:
        """An order that is done for us: its fills are known, or came after all, or are not ours."""
        for execution in report.executions:
            if await is_booked(self.host.store, self.venue.name, execution.symbol, execution.trade_id):
                continue
            order = await find_order(self.host.store, report.order_id)
            text = f"{execution.side} {execution.quantity} at {execution.price}, trade {execution.trade_id}"
            if order is None:
                self.host.alert_in(effects, "foreign-fill", "warning", f"Order {report.order_id} is not ours: {text}.")
                continue
            self._new_fill(order, execution, effects)
            self.host.alert_in(effects, "late-fill", "warning", f"Order {order.order_id} was {order.state}: {text}.")
            await effects.flush()  # the next one is looked up in the database

    def _book(self, order: Order, execution: Execution, effects: Effects) -> Order:
        """Book one execution under its key (venue, symbol, trade id), unless it was booked before."""
        booked = self._booked.setdefault(order.order_id, set())
        if execution.trade_id in booked:
            return order
        booked.add(execution.trade_id)
        return self._new_fill(order, execution, effects)

    def _new_fill(self, order: Order, execution: Execution, effects: Effects) -> Order:
        sleeve = self.desk.sleeves[order.sleeve]
        fill = TradeFill(
            venue=order.venue,
            strategy=sleeve.strategy,
            timeframe=sleeve.timeframe,
            order_id=order.order_id,
            **msgspec.structs.asdict(execution),
        )
        effects.add(kept_fill(fill))
        fill_id = self.keeper.say(effects, subjects.TRADE_FILL, fill)
        effects.afterwards(lambda: self.host.progress.booked(fill_id))
        order = msgspec.structs.replace(order, executed=order.executed + fill.quantity)
        if order.is_open:
            self.open[order.order_id] = order
        try:
            closed = sleeve.trader.on_fill(fill)
        except BadMessage as error:
            self.keeper.halt(sleeve, str(error), effects)
            return order
        self.keeper.touch(sleeve)
        if closed is not None:
            effects.add(kept_trade(closed))
            self.keeper.say(effects, subjects.TRADE_CLOSED, closed)
            self.desk.standing = with_trade(self.desk.standing, closed.trade_id, closed.pnl)
            self.keeper.trip(effects, ())
        return order

    def _rejected(self, order: Order, effects: Effects) -> None:
        self._keep(order, effects)
        rejected = OrderRejected(**self._about(order), refused_by="venue", code=order.code, reason=order.detail)
        self.keeper.say(effects, subjects.ORDER_REJECTED, rejected)
        self._came_to_nothing(order)

    def _came_to_nothing(self, order: Order) -> None:
        sleeve = self.desk.sleeves[order.sleeve]
        sleeve.trader.on_reject()
        self.keeper.touch(sleeve)

    # -- lost answers ------------------------------------------------------------------------------------------------

    def _lost_answer(self, order: Order, reason: str, effects: Effects) -> None:
        order = msgspec.structs.replace(order, state="unknown", detail=reason[:500])
        self._keep(order, effects)
        text = (
            f"The venue's answer to order {order.order_id} was lost ({reason}). It is asked for; nothing is sent again."
        )
        self.host.alert_in(effects, "order-unknown", "warning", text)
        holding = self.host.progress.hold(f"order {order.order_id}")
        holding.__enter__()  # before this bar is reached; the task below leaves it
        self.host.spawn(self._settle_held(order, holding), f"settle {order.order_id}")

    async def _settle_held(self, order: Order, holding: AbstractContextManager[None]) -> None:
        try:
            await self.settle(order)
        finally:
            holding.__exit__(None, None, None)

    async def settle(self, order: Order) -> None:
        """Find out what became of an order whose answer we do not have. Never called in the service's turn."""
        self._settling.add(order.order_id)
        await asyncio.sleep(self.venue.settle_s)  # until then the venue may still take what was sent
        report = await self.asked(lambda: self.venue.query(order.ticket))
        if report is None:
            await asyncio.sleep(min(ASK_AGAIN_S, self.venue.settle_s))
            report = await self.asked(lambda: self.venue.query(order.ticket))
        self._settling.discard(order.order_id)

        async def settled(effects: Effects) -> None:
            if report is not None:
                await self.take(report, effects)
            elif (unanswered := self.open.get(order.order_id)) is not None and unanswered.state != "accepted":
                await self._never_arrived(unanswered, effects)
            self.keeper.keep(effects)

        await self.host.act(settled)

    async def _never_arrived(self, order: Order, effects: Effects) -> None:
        """The venue does not know it and cannot take it any more: once more under the next id, or not at all."""
        lost = msgspec.structs.replace(order, state="lost")
        self._keep(lost, effects)
        rejected = OrderRejected(
            **self._about(lost), refused_by="venue", code="never_arrived", reason="the venue never had it"
        )
        self.keeper.say(effects, subjects.ORDER_REJECTED, rejected)
        again = lost.next_attempt(self.host.settings.account)
        if again is None:
            self._came_to_nothing(lost)
            return
        sleeve = self.desk.sleeves[again.sleeve]
        self._submitted(again, sleeve, sleeve.trader.intent, effects)
        self.keeper.keep(effects)
        await effects.flush()
        await self.send([again], effects)

    async def recover(self) -> None:
        """Look after the orders that were open when we stopped. Nothing is traded before this is done."""
        for order in await open_orders(self.host.store):
            self.open[order.order_id] = order
            self.desk.sleeve_of[order.order_id] = order.sleeve
            self._booked[order.order_id] = await booked_trades(self.host.store, order.order_id)
        self.venue.take_up(order.ticket for order in self.open.values() if order.state == "accepted")
        for order in list(self.open.values()):
            if order.state != "accepted":
                await self.settle(order)
        await self.ask_for_open_orders()

    async def ask_for_open_orders(self) -> None:
        """Ask the venue for what we think rests there: a stream can lose a frame while it looks healthy."""
        for order in list(self.open.values()):
            if order.state != "accepted" or order.order_id in self._settling:
                continue
            report = await self.asked(lambda order=order: self.venue.query(order.ticket))
            if report is not None and report.status == "open" and report.executed == order.executed:
                continue

            async def answered(effects: Effects, order: Order = order, report: Report | None = report) -> None:
                if report is None:
                    text = f"Order {order.order_id} was accepted as {order.venue_order_id}; the venue does not know it."
                    self.host.alert_in(effects, "order-gone", "critical", text)
                else:
                    await self.take(report, effects)
                    self.keeper.keep(effects)

            await self.host.act(answered)

    async def hear_venue(self) -> None:
        """Take what the venue tells unasked, for ever. When its stream begins anew the open orders are asked for."""
        while True:
            try:
                reports = await self.venue.next_reports()
            except TryAgain as error:
                self.host.log.info("venue.asked", reason=str(error))
                await self.ask_for_open_orders()
                continue

            async def told(effects: Effects, reports: Sequence[Report] = reports) -> None:
                for report in reports:
                    await self.take(report, effects)
                self.keeper.keep(effects)

            await self.host.act(told)

    async def asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The venue's answer to a question that changes nothing, asked until there is one."""
        for pause in chain(RETRY_S, repeat(RETRY_S[-1])):
            try:
                return await ask()
            except TryAgain as error:
                self.host.log.warning("venue.retry", error=str(error))
                await asyncio.sleep(pause)
        raise AssertionError("repeat() never ends")

    # -- rows --------------------------------------------------------------------------------------------------------

    def _keep(self, order: Order, effects: Effects) -> None:
        effects.add(kept_order(order))
        if order.is_open:
            self.open[order.order_id] = order
            self.desk.sleeve_of[order.order_id] = order.sleeve
        else:
            self.open.pop(order.order_id, None)
            self._booked.pop(order.order_id, None)
            self.desk.sleeve_of.pop(order.order_id, None)

    def _about(self, order: Order) -> dict[str, Any]:
        sleeve = self.desk.sleeves[order.sleeve]
        return {
            "order_id": order.order_id,
            "venue": order.venue,
            "strategy": sleeve.strategy,
            "symbol": sleeve.symbol,
            "timeframe": sleeve.timeframe,
            "at": order.at,
        }


def _signal(order: Order, sleeve: Sleeve, intent: Intent) -> Signal:
    return Signal(
        venue=order.venue,
        strategy=sleeve.strategy,
        symbol=sleeve.symbol,
        timeframe=sleeve.timeframe,
        opened_at=intent.opened_at,
        closed_at=order.at,
        exposure=intent.exposure,
        exit_reason="" if intent.is_entry else intent.reason,
        preset_id=intent.preset_id,
        model_id=intent.model_id,
        decision_id=intent.decision_id,
        regime=intent.regime,
    )
