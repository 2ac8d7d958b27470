"""What the engine does with each message that it hears. Deciding is the desk's, sending the executor's; here they meet.

A bar is one transaction: journal, reading, sleeves, watermark, and the intents it led to. Only then is an order sent,
and the answers are a second one. So a crash at any point finds either a bar that was not taken, or an order whose
answer is asked for.
"""

from __future__ import annotations

from datetime import datetime

from services.engine import breakers
from services.engine.desk import Decided, Desk, Series, Sleeve
from services.engine.executor import Executor
from services.engine.keeper import Keeper
from services.engine.orders import Order
from services.engine.presets import usable_preset
from services.engine.records import artifact, artifact_row, bar_row, last_bars, manifest_fact, series_row
from services.engine.settings import EngineSettings
from shared.artifacts.models import load_model
from shared.artifacts.signing import trusted_manifest
from shared.contracts import subjects
from shared.contracts.errors import BadMessage
from shared.contracts.governance import ModelDemoted, ModelPromoted, PresetDemoted, PresetPromoted
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.parameters import ParamDecision
from shared.contracts.risk import Command, CommandAnswered, Flatten, RailTouched, Resume
from shared.contracts.times import from_ms, timeframe_length, timeframe_ms, to_ms
from shared.contracts.wire import message_id
from shared.regimes.hmm import RegimeModel
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.trading.trader import KEPT_BARS
from shared.trading.values import Bar

ModelNews = ModelPromoted | ModelDemoted
PresetNews = PresetPromoted | PresetDemoted
SAID_AGAIN = 128  # messages that a start says it has booked; a Progress carries 256


class Engine:
    """Handlers. They run one at a time, in the order of their streams."""

    def __init__(self, host: Host[EngineSettings], desk: Desk, executor: Executor, keeper: Keeper) -> None:
        self.host, self.desk, self.executor, self.keeper = host, desk, executor, keeper
        self._closing_ms = -1  # opened-at of the newest live bar, while the account has not closed it

    # -- the market --------------------------------------------------------------------------------------------------

    async def on_bar(self, message: BarClosed, effects: Effects) -> None:
        """Fill what waited for this bar's open, read it, decide, and send what is wanted for the next."""
        series = self._series(message.venue, message.symbol, message.timeframe)
        if series is None or to_ms(message.opened_at) <= series.watermark_ms:
            return
        self.keeper.heard(effects)
        reports = self.executor.venue.opened(message.symbol, message.open, message.opened_at)
        for report in reports:
            await self.executor.take(report, effects)
        self.keeper.keep(effects)  # before the strategy speaks: if it raises, the fills stay booked
        if series.kept.awaited_model:
            await self._use_awaited_model(series, effects)
        if not message.is_history:
            self._close_overdue_account(to_ms(message.opened_at), effects)
        bar = Bar(to_ms(message.opened_at), message.open, message.high, message.low, message.close, message.volume)
        reading = self.desk.read(series, bar)
        if not message.is_history and series.kept.first_live_ms < 0:
            series.note(first_live_ms=bar.opened_at_ms)
        effects.add(bar_row(series.name, bar, message.is_history, reading), series_row(series.name, series.kept))
        orders = [
            order
            for decided in self.desk.decide(series, bar, reading, message.is_history)
            if (order := self._decided(decided, message.closed_at, effects)) is not None
        ]
        if not message.is_history:
            self._closing_ms = max(self._closing_ms, bar.opened_at_ms)
            if all(each.watermark_ms >= self._closing_ms for each in self.desk.series.values()):
                self._close_account(self._closing_ms, effects)
        orders += self._leave(message.closed_at, effects)
        await self._keep_and_send(orders, effects)
        if not reports and not orders:
            effects.comes_again()
        effects.afterwards(lambda: self._reached(message.venue, series, message.opened_at))

    async def on_gap(self, gap: GapFound, effects: Effects) -> None:
        """These bars never existed; the next one follows the last one that did."""
        series = self._series(gap.venue, gap.symbol, gap.timeframe)
        last_ms = to_ms(gap.last_opened_at)
        if series is None or last_ms <= series.watermark_ms:
            return
        self.keeper.heard(effects)
        is_live = series.kept.first_live_ms >= 0
        absent = series.kept.absent + (gap.bars if is_live else 0)
        series.note(watermark_ms=last_ms, absent=absent)
        effects.add(series_row(series.name, series.kept))
        effects.afterwards(lambda: self._reached(gap.venue, series, gap.last_opened_at))

    async def say_how_far(self) -> None:
        """After a start: what was taken before it. Others may wait for a word that was lost with the last life."""
        rows = await self.host.store.rows(
            "select id from inbox where id not glob 'BarClosed:*' order by stored_ms desc limit ?", SAID_AGAIN
        )
        self.host.progress.booked(*(row[0] for row in reversed(rows)))
        for series in self.desk.series.values():
            if series.watermark_ms >= 0:
                self._reached(self.executor.venue.name, series, from_ms(series.watermark_ms))

    def _reached(self, venue: str, series: Series, opened_at: datetime) -> None:
        self.host.progress.reached(venue, series.symbol, series.timeframe, opened_at)

    def _decided(self, decided: Decided, at: datetime, effects: Effects) -> Order | None:
        """Keep what a sleeve decided; the order that it leads to, if it does."""
        sleeve = decided.sleeve
        if decided.failure:
            self.keeper.halt(sleeve, decided.failure, effects)
            return None
        self.keeper.touch(sleeve)
        for touch in decided.touches:
            touched = RailTouched(
                rail=touch.rail,
                venue=self.executor.venue.name,
                strategy=sleeve.strategy,
                symbol=sleeve.symbol,
                timeframe=sleeve.timeframe,
                action=touch.action,
                limit=touch.limit,
                was=touch.was,
                at=at,
            )
            self.keeper.say(effects, subjects.RAIL_TOUCHED, touched)
        return None if decided.intent is None else self.executor.intend(sleeve, decided.intent, at, effects)

    async def _keep_and_send(self, orders: list[Order], effects: Effects) -> None:
        self.keeper.keep(effects)
        if orders:
            await effects.flush()  # the intents are durable from here on
            await self.executor.send(orders, effects)
            self.keeper.keep(effects)

    # -- the account -------------------------------------------------------------------------------------------------

    def _close_overdue_account(self, opened_ms: int, effects: Effects) -> None:
        """A newer bar is here, and some instrument had none on the one before: the account closes it without."""
        if 0 <= self._closing_ms < opened_ms:
            self._close_account(self._closing_ms, effects)

    def _close_account(self, opened_ms: int, effects: Effects) -> None:
        """All that trades has closed this bar: tell the account, and judge it."""
        timeframe, account = self.host.settings.timeframe, self.host.settings.account
        at = from_ms(opened_ms + timeframe_ms(timeframe))
        self._closing_ms = -1
        if to_ms(at) <= self.desk.standing.closed_ms:
            return
        snapshot = self.desk.snapshot(account, at)
        self.keeper.say(effects, subjects.PORTFOLIO_SNAPSHOT, snapshot)
        self.desk.standing, trips = breakers.on_close(
            self.desk.standing,
            account,
            snapshot.equity,
            self.desk.held(),
            at,
            self.desk.limits,
            timeframe_length(timeframe),
        )
        self.keeper.trip(effects, trips)

    def _leave(self, at: datetime, effects: Effects, leg: str = "leave") -> list[Order]:
        """While everything is to be closed: an order for each sleeve that still holds something."""
        if not self.desk.standing.is_closing:
            return []
        orders: list[Order] = []
        for sleeve in self.desk.sleeves.values():
            intent = sleeve.trader.flatten()
            if intent is not None:
                orders.append(self.executor.intend(sleeve, intent, at, effects, f"{leg}.{to_ms(at)}"))
        return orders

    # -- what may be used, and what is chosen -------------------------------------------------------------------------

    async def on_model(self, news: ModelNews, effects: Effects) -> None:
        """A model reads this instrument from the next closed bar on, or no longer."""
        effects.afterwards(lambda: self.host.progress.booked(message_id(news)))
        series = self._series(news.venue, news.symbol, news.timeframe)
        if series is None:
            return
        self.keeper.heard(effects)
        if isinstance(news, ModelDemoted):
            if news.model_id in (series.reader.model_id, series.kept.awaited_model):
                series.reader.drop()
                series.note(model_id="", awaited_model="", filter=((), 0.0))
        elif refusal := self._model_refusal(news):
            self.host.alert_in(effects, f"model-refused-{news.symbol}", "critical", refusal)
            return
        else:
            effects.keep_fact(manifest_fact(news.model_id), news.manifest)  # its signature is asked for at each start
            series.note(awaited_model=news.model_id, awaited_promoted_ms=to_ms(news.promoted_at))
            await self._use_awaited_model(series, effects)
        effects.add(series_row(series.name, series.kept))

    def _model_refusal(self, news: ModelPromoted) -> str:
        """Why this model is not used, "" when it is."""
        try:
            manifest = trusted_manifest(news.manifest, news.model_id, self.host.settings.signing_key)
        except BadMessage as error:
            return f"{error} The model before it stays."
        if self.host.settings.mode == "live" and manifest.is_synthetic:
            return f"Model {news.model_id[:12]} of {news.symbol} was fitted on made-up bars: it never trades for real."
        return ""

    async def _use_awaited_model(self, series: Series, effects: Effects) -> None:
        """Switch to the promoted model if its bytes are to be had and are what its id says; else the old one stays."""
        model_id, promoted_ms = series.kept.awaited_model, series.kept.awaited_promoted_ms
        try:
            model = await self._model(model_id, effects)
        except BadMessage as error:
            series.note(awaited_model="")
            text = f"{error} The model before it stays."
            self.host.alert_in(effects, f"model-refused-{series.symbol}", "critical", text)
            return
        if model is None:
            text = f"Model {model_id[:12]} of {series.symbol} is promoted, and its bytes are not to be had yet."
            self.host.alert_in(effects, f"model-absent-{series.symbol}", "warning", text)
            return
        series.reader.use(model, model_id, promoted_ms)
        state = series.reader.filter
        series.note(
            model_id=model_id,
            promoted_ms=promoted_ms,
            awaited_model="",
            filter=(state.posterior, state.log_likelihood),
        )
        self.host.log.info("model.used", symbol=series.symbol, model=model_id[:12])

    async def _model(self, model_id: str, effects: Effects) -> RegimeModel | None:
        """The model from our own copy, else from the bus, kept then. None when neither has it; BadMessage when bad."""
        content = await artifact(self.host.store, model_id)
        if content is None:
            content = await self.host.bus.get_artifact(model_id)
            if content is None:
                return None
            model = load_model(content, model_id)
            effects.add(artifact_row(model_id, content))
            return model
        return load_model(content, model_id)

    async def on_preset(self, news: PresetNews, effects: Effects) -> None:
        """A preset may be chosen by new positions from the next closed bar on, or no longer."""
        effects.afterwards(lambda: self.host.progress.booked(message_id(news)))
        sleeve = self._sleeve(news.venue, news.strategy, news.symbol, news.timeframe)
        if sleeve is None:
            return
        self.keeper.heard(effects)
        if isinstance(news, PresetDemoted):
            sleeve.trader.retire(news.preset_id)
        else:
            try:
                preset = usable_preset(
                    news.preset_id, news.preset, sleeve.trader.strategy, sleeve.symbol, sleeve.timeframe
                )
            except BadMessage as error:
                self._refuse_preset(news, str(error), effects)
                return
            try:
                sleeve.admit(news.preset_id, preset.params)
            except Exception as error:  # noqa: BLE001  # a strategy's own fault, while it is warmed with these parameters
                self._refuse_preset(news, f"{type(error).__name__} while it was warmed: {error}", effects)
                return
            effects.add(artifact_row(news.preset_id, news.preset))
        self.keeper.touch(sleeve)
        self.keeper.keep(effects)

    def _refuse_preset(self, news: PresetPromoted, reason: str, effects: Effects) -> None:
        text = f"Preset {news.preset_id[:12]} of {news.strategy} on {news.symbol} is not used. {reason}"
        self.host.alert_in(effects, f"preset-refused-{news.strategy}-{news.symbol}"[:64], "critical", text)

    async def on_decision(self, decision: ParamDecision, effects: Effects) -> None:
        """New positions of this sleeve follow this preset from the next closed bar on."""
        effects.afterwards(lambda: self.host.progress.booked(message_id(decision)))
        sleeve = self._sleeve(decision.venue, decision.strategy, decision.symbol, decision.timeframe)
        if sleeve is None:
            return
        self.keeper.heard(effects)
        if not sleeve.choose(decision.preset_id, decision.decision_id):
            self.host.log.info("preset.awaited", sleeve=sleeve.name, preset=decision.preset_id[:12])
        self.keeper.touch(sleeve)
        self.keeper.keep(effects)

    # -- people ------------------------------------------------------------------------------------------------------

    async def on_command(self, command: Command, effects: Effects) -> None:
        """Do what a person asks, and answer."""
        if command.account != self.host.settings.account:
            return
        self.keeper.heard(effects)
        at = self.host.clock.now()
        self.desk.standing, trips = breakers.on_command(self.desk.standing, command, at)
        self.keeper.trip(effects, trips)
        detail = f"trading is {self.desk.standing.state}"
        orders: list[Order] = []
        if isinstance(command, Flatten):
            orders = self._leave(at, effects, f"flatten.{command.command_id}")
            detail = f"{len(orders)} positions are being closed; {detail}"
        if isinstance(command, Resume):
            detail += await self._wake_sleeves()
        answered = CommandAnswered(
            command_id=command.command_id, account=command.account, done=True, detail=detail, at=at
        )
        self.keeper.say(effects, subjects.COMMAND_ANSWERED, answered)
        await self._keep_and_send(orders, effects)

    async def _wake_sleeves(self) -> str:
        """Sleeves that stood still go on, warmed anew: they have missed bars."""
        words = ""
        for sleeve in [each for each in self.desk.sleeves.values() if each.kept.halted]:
            reason = sleeve.wake(await last_bars(self.host.store, sleeve.series, KEPT_BARS))
            words += f"; {sleeve.name} stands still: {reason}" if reason else f"; {sleeve.name} goes on"
            if not reason:
                self.keeper.touch(sleeve)
        return words

    # -- private -----------------------------------------------------------------------------------------------------

    def _series(self, venue: str, symbol: str, timeframe: str) -> Series | None:
        return self.desk.series.get(f"{symbol}.{timeframe}") if venue == self.executor.venue.name else None

    def _sleeve(self, venue: str, strategy: str, symbol: str, timeframe: str) -> Sleeve | None:
        found = self.desk.sleeves.get(f"{strategy}.{symbol}.{timeframe}")
        return found if venue == self.executor.venue.name else None
