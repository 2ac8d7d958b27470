"""The shell: readings and closed trades in, decisions and outcomes out.

A decision needs all that the engine did up to the close of its bar, and that may still be on its way when the reading
comes. So a due decision is made beside the handlers, in a turn of its own, once the engine says that it has come to
that bar and we have heard what it told; until then our progress is held. In real time nobody notices; at
`--speed max` it makes two runs alike.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from datetime import datetime

from services.param_controller.controller import ParamController
from services.param_controller.memory import (
    TABLES,
    keep_arm,
    keep_decision,
    keep_holding,
    keep_lesson,
    keep_reading,
    keep_trade,
    recall,
)
from services.param_controller.settings import ParamSettings
from services.param_controller.sleeves import Policy, Series, key_of, series_of
from shared.contracts.execution import Signal, TradeClosed, TradeFill
from shared.contracts.governance import PresetDemoted, PresetPromoted
from shared.contracts.market import bar_named
from shared.contracts.regime import RegimeReading
from shared.contracts.subjects import (
    PARAM_DECISION,
    PARAM_OUTCOME,
    PRESET_DEMOTED,
    PRESET_PROMOTED,
    REGIME_READING,
    SIGNAL,
    TRADE_CLOSED,
    TRADE_FILL,
)
from shared.contracts.times import EPOCH, to_ms
from shared.contracts.wire import Envelope, message_id
from shared.runtime.listening import Effects
from shared.runtime.progress import Heard
from shared.runtime.service import Host, Service
from shared.trading.strategies import find_strategy, load_strategies

LINGER_S = 0.1  # readings on which nothing can fall due are taken together; who waits for us hurries us
EXECUTION = ("Signal:", "TradeFill:", "TradeClosed:")  # what we hear of the engine, in one stream, in its order
REMEMBERED = 4096


async def serve(host: Host[ParamSettings]) -> None:
    """Regime in, decision out; closed trade in, lesson learned."""
    settings = host.settings
    found = load_strategies(settings.strategies_folder)
    traded = {name: find_strategy(name, found) for name in settings.strategies}
    policy = Policy(settings.epoch_bars, settings.l2, settings.exploration, settings.seed)
    controller = ParamController(traded, policy, has_defaults=settings.mode == "paper")
    await recall(host.store, controller)
    engine = EngineWatch(host)
    await engine.recall()

    async def on_reading(reading: RegimeReading, effects: Effects) -> None:
        if any(controller.may_be_due(sleeve, reading) for sleeve in controller.hear(reading)):
            effects.add(keep_reading(reading))  # a start goes on from it
        else:
            effects.comes_again()
        cause = effects.cause
        effects.afterwards(lambda: go_on_from(reading, cause))

    def go_on_from(reading: RegimeReading, cause: Envelope | None) -> None:
        """This reading is kept: decide on it where that is due, and say that we have come to it."""
        hold = ExitStack()
        if any(controller.may_be_due(sleeve, reading) for sleeve in controller.hear(reading)):
            hold.enter_context(host.progress.hold(f"decision {reading.symbol}"))
            host.spawn(decide(reading, cause, hold), f"decide {reading.symbol}")
        series = reading.venue, reading.symbol, reading.timeframe
        idle_until_ms = to_ms(controller.idle_until(reading))
        host.progress.reached(*series, reading.opened_at, idle_until_ms=idle_until_ms)

    def idle_again(reading: RegimeReading) -> None:
        """What may fall due after this reading has changed."""
        host.progress.is_idle_until(reading.symbol, reading.timeframe, to_ms(controller.idle_until(reading)))

    async def decide(reading: RegimeReading, cause: Envelope | None, hold: ExitStack) -> None:
        with hold:
            await engine.until_it_has_come_to(reading)
            if controller.readings[series_of(reading)] is reading:  # else a later reading decides
                await host.act(lambda effects: turn(reading, cause, effects))

    async def turn(reading: RegimeReading, cause: Envelope | None, effects: Effects) -> None:
        effects.cause = cause
        effects.afterwards(lambda: idle_again(reading))
        for sleeve in controller.hear(reading):
            held = sleeve.holding
            made = controller.turn(sleeve, reading)
            if sleeve.holding != held:
                effects.add(keep_holding(sleeve.key, sleeve.holding))
            if made is None:
                continue
            if made.lesson is not None:
                effects.add(keep_lesson(sleeve.key, made.lesson))
                effects.publish(PARAM_OUTCOME, made.lesson.outcome)
            effects.add(keep_decision(sleeve.key, made.decision))
            told = effects.publish(PARAM_DECISION, made.decision)
            effects.afterwards(lambda told=told: host.progress.told(told.id))
            host.log.info(
                "param.decision",
                sleeve=".".join(sleeve.key),
                preset=made.decision.preset_id[:12],
                odds=round(made.decision.propensities[made.decision.preset_id], 3),
                lessons=sleeve.lessons,
            )

    async def on_execution(said: Signal | TradeFill | TradeClosed, effects: Effects) -> None:
        bar = None if effects.cause is None else bar_named(effects.cause.correlation)
        on_bar = None if bar is None else bar.opened_at
        sleeve = controller.on_execution(said, on_bar or EPOCH)
        if sleeve is not None:
            effects.add(keep_holding(sleeve.key, sleeve.holding))
            if isinstance(said, TradeClosed):
                effects.add(keep_trade(sleeve.key, said))
                settle(said, on_bar, effects)
        effects.afterwards(lambda: engine.heard(message_id(said)))

    def settle(trade: TradeClosed, on_bar: datetime | None, effects: Effects) -> None:
        """The epoch may end now: on the last reading, if the trade closed on its bar or before it, else on a later one."""
        last, cause = controller.readings.get(Series(trade.venue, trade.symbol, trade.timeframe)), effects.cause
        if last is None:
            return
        if on_bar is not None and on_bar <= last.opened_at:
            effects.add(keep_reading(last))
            effects.afterwards(lambda: go_on_from(last, cause))
        else:
            effects.afterwards(lambda: idle_again(last))
            effects.afterwards(host.bus.hurry)

    async def on_promotion(said: PresetPromoted | PresetDemoted, effects: Effects) -> None:
        arm = controller.promote(said) if isinstance(said, PresetPromoted) else controller.demote(said)
        if arm is not None:
            effects.add(keep_arm(key_of(said), said.preset_id, arm))
        last = controller.readings.get(Series(said.venue, said.symbol, said.timeframe))
        if last is not None:
            effects.afterwards(lambda: idle_again(last))
        effects.afterwards(lambda: host.progress.booked(message_id(said)))

    if host.web is not None:
        from services.param_controller.routes import routes  # FastAPI only where it serves

        for prefix in ("", "/api/v1"):
            host.web.include_router(routes(host, controller), prefix=prefix)
    for reading in list(controller.readings.values()):  # what was under way when we stopped
        go_on_from(reading, None)

    def linger() -> float:
        soon = (controller.idle_until(last) <= last.happened_at for last in controller.readings.values())
        return 0.0 if any(soon) else LINGER_S

    await host.listen({REGIME_READING: on_reading}, linger)
    await host.listen(
        {
            PRESET_PROMOTED: on_promotion,
            PRESET_DEMOTED: on_promotion,
            SIGNAL: on_execution,
            TRADE_FILL: on_execution,
            TRADE_CLOSED: on_execution,
        }
    )


class EngineWatch:
    """How far the engine has come, and whether we have heard all that it said on the way."""

    def __init__(self, host: Host[ParamSettings]) -> None:
        self._host = host
        self._heard: OrderedDict[str, None] = OrderedDict()

    async def recall(self) -> None:
        """Remember what was heard before the start, and say so."""
        rows = await self._host.store.rows("select id from inbox order by stored_ms desc limit ?", REMEMBERED)
        known = [row[0] for row in reversed(rows) if not row[0].startswith("RegimeReading:")]
        self._heard.update((message, None) for message in known if message.startswith(EXECUTION))
        self._host.progress.booked(*known)

    def heard(self, message: str) -> None:
        """This message was taken in."""
        self._heard[message] = None
        while len(self._heard) > REMEMBERED:
            self._heard.popitem(last=False)
        self._host.progress.booked(message)

    async def until_it_has_come_to(self, reading: RegimeReading) -> None:
        """Wait until the engine is past this reading's bar and we know what it did there, or until it is silent."""
        series, opened_ms = f"{reading.symbol}.{reading.timeframe}", to_ms(reading.opened_at)
        since, patience_s = self._host.clock.monotonic(), self._host.settings.engine_patience_s

        def holds(engine: Heard) -> bool:
            silent_s = (self._host.clock.wall() - engine.said_at).total_seconds()
            if silent_s > patience_s:
                return self._host.clock.monotonic() - since > patience_s
            told = [message for message in engine.told if message.startswith(EXECUTION)]
            # The stream keeps their order, so who has heard the last one has heard them all.
            return engine.at.get(series, -1) >= opened_ms and (not told or told[-1] in self._heard)

        await self._host.progress.until("engine", holds)


SERVICE = Service("param_controller", ParamSettings, serve, TABLES)
