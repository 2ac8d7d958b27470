"""A small market's story, told by the real contracts: bars, readings, models, presets, decisions, orders, trades.

It stands in for the services that speak to ops_api and the notifier. Each message is what its service would say, in
its envelope, with its cause; prices are a seeded walk whose drift follows its regime.

    python -m tests.browser.story 8002      # the page on this story, until Ctrl-C
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Literal

from shared.artifacts.models import ModelManifest, manifest_bytes
from shared.artifacts.presets import Preset, preset_bytes, preset_id
from shared.bus.bus import Bus, Outgoing
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts import subjects as said
from shared.contracts.execution import OrderSubmitted, PortfolioSnapshot, Position, Signal, TradeClosed, TradeFill
from shared.contracts.governance import ModelPromoted, ModelTrained, PresetPromoted, PresetRefused, Span, StageChanged
from shared.contracts.market import BarClosed
from shared.contracts.operations import Health
from shared.contracts.parameters import ParamDecision, ParamOutcome, decision_id
from shared.contracts.regime import MarketRegime, RegimeName, RegimeReading
from shared.contracts.times import to_ms
from shared.contracts.wire import Envelope, Message, pack, wrap
from tests.browser.serving import served

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DRIFT: dict[RegimeName, float] = {"BULL": 0.00012, "BEAR": -0.00014, "CHOP": 0.0}  # a quarter of a bar
STRATEGY, TIMEFRAME, VENUE = "trend_follow", "1m", "sim"
FEE = Decimal("0.0004")
PROMISED = 5.9  # log-likelihood of a bar on those held out, nats


class Teller:
    """Says messages on a bus as a service would."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.said = 0  # messages that are kept in a stream

    async def tell(self, message: Message, source: str, cause: Envelope | None = None) -> Envelope:
        envelope = wrap(message, source, cause)
        subject = said.subject_of(message)
        if subject.stream is None:
            await self._bus.say(subject.of(message), pack(envelope))
        else:
            self.said += 1
            await self._bus.publish([Outgoing(subject.of(message), pack(envelope), envelope.id)])
        return envelope


class Instrument:
    """One symbol's walk, and the sleeve that trades it: in while BULL, out otherwise."""

    def __init__(self, symbol: str, price: float, seed: int) -> None:
        self.symbol, self.price, self.chance = symbol, price, random.Random(seed)
        self.surprise = random.Random(seed + 100)  # of each bar, so that the walk is as it was
        self.regime: RegimeName = "CHOP"
        self.presets: list[str] = []
        self.model_id = ""
        self.position: tuple[OrderSubmitted, TradeFill, int] | None = None
        self.decision: ParamDecision | None = None
        self.learned: set[str] = set()

    def preset(self, n: int) -> tuple[str, bytes]:
        params = {"fast": 8 + 4 * n, "slow": 60 + 20 * n, "stop_atr": 2.5}
        origin = "default" if n == 0 else "backtest"
        made = Preset(
            strategy=STRATEGY,
            source_hash=sha256(b"story").hexdigest(),
            schema_version=1,
            params=params,
            symbol=self.symbol,
            timeframe=TIMEFRAME,
            origin=origin,
        )
        return preset_id(made), preset_bytes(made)

    def bar(self, opened_at: datetime) -> BarClosed:
        if self.chance.random() < 0.035:
            self.regime = self.chance.choice([name for name in DRIFT if name != self.regime])
        opened = self.price
        path = [opened]
        for _ in range(4):
            path.append(path[-1] * math.exp(DRIFT[self.regime] + self.chance.gauss(0, 0.0008)))
        self.price = path[-1]
        return BarClosed(
            venue=VENUE,
            symbol=self.symbol,
            timeframe=TIMEFRAME,
            opened_at=opened_at,
            closed_at=opened_at + MINUTE,
            open=opened,
            high=max(path),
            low=min(path),
            close=path[-1],
            volume=self.chance.uniform(1, 20),
        )

    def reading(self, bar: BarClosed) -> RegimeReading:
        odds: dict[RegimeName, float] = dict.fromkeys(DRIFT, 0.08)
        odds[self.regime] = 0.84
        known = bool(self.model_id)
        nan = math.nan
        return RegimeReading(
            venue=VENUE,
            symbol=self.symbol,
            timeframe=TIMEFRAME,
            opened_at=bar.opened_at,
            regime=self.regime if known else "UNKNOWN",
            bull=odds["BULL"] if known else nan,
            bear=odds["BEAR"] if known else nan,
            chop=odds["CHOP"] if known else nan,
            model_id=self.model_id,
            context=(1.0, odds["BULL"]),
            context_schema="story-1",
            reading_hash="0" * 64,
            log_likelihood=self.surprise.gauss(PROMISED, 0.6) if known else nan,
        )


class Story:
    """The whole house, bar by bar."""

    def __init__(self, bus: Bus, seed: int = 7) -> None:
        self.teller = Teller(bus)
        self.at = BEGIN
        self.cash, self.fees = Decimal(30_000), Decimal(0)
        self.instruments = [
            Instrument("BTC-USDT", 64_000.0, seed),
            Instrument("ETH-USDT", 3_150.0, seed + 1),
            Instrument("SOL-USDT", 142.0, seed + 2),
        ]
        self.sequence, self.last_hash = 0, "0" * 64

    async def begin(self) -> None:
        """Defaults are admitted from birth."""
        for one in self.instruments:
            await self._admit(one, 0, "")

    async def bars(self, count: int) -> None:
        """So many bars on every instrument."""
        for _ in range(count):
            for one in self.instruments:
                await self._bar(one)
            self.at += MINUTE
            await self._snapshot()

    async def health(self, wall: datetime) -> None:
        """What every service says of itself."""
        services = {"ingester": 0, "engine": 0, "ml_service": 0, "param_controller": 0, "governor": 1, "notifier": None}
        series = [f"{one.symbol}.{TIMEFRAME}" for one in self.instruments]
        for name in said.SERVICES:
            missing = ("bars",) if name == "backtest_suite" else ()
            lag = services.get(name)
            reached = {} if lag is None else dict.fromkeys(series, to_ms(self.at - MINUTE * (1 + lag)))
            health = Health(
                service=name,
                ready=not missing,
                waiting_for=missing,
                version="0.1.0",
                restarts=0,
                at=reached,
                holding="evidence on 3f2a" if name == "governor" else "",
                said_at=wall,
            )
            await self.teller.tell(health, name)

    async def _bar(self, one: Instrument) -> None:
        bar = one.bar(self.at)
        cause = await self.teller.tell(bar, "ingester")
        n = (self.at - BEGIN) // MINUTE
        if n == 40:
            await self._promote_model(one, bar)
        if n == 200:
            await self._refuse_model(one, bar)
        if n in (90, 180, 260) and len(one.presets) < 4:
            await self._judge_preset(one, len(one.presets), passes=n != 180)
        reading = one.reading(bar)
        read = await self.teller.tell(reading, "ml_service", cause)
        if n % 24 == 0:
            one.decision = self._decide(one, bar, reading)
            await self.teller.tell(one.decision, "param_controller", read)
        wants_in = one.regime == "BULL"
        if wants_in and one.position is None and one.decision is not None:
            await self._enter(one, bar, one.decision, cause)
        elif not wants_in and one.position is not None:
            await self._leave(one, bar, cause)

    def _decide(self, one: Instrument, bar: BarClosed, reading: RegimeReading) -> ParamDecision:
        weights = [one.chance.uniform(0.2, 1.0) for _ in one.presets]
        odds = {preset: weight / sum(weights) for preset, weight in zip(one.presets, weights, strict=True)}
        return ParamDecision(
            decision_id=decision_id(VENUE, STRATEGY, one.symbol, TIMEFRAME, bar.opened_at),
            venue=VENUE,
            strategy=STRATEGY,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            preset_id=max(odds, key=lambda preset: odds[preset]),
            epoch=(bar.opened_at - BEGIN) // MINUTE // 24,
            decided_on=bar.opened_at,
            decided_at=bar.closed_at,
            policy_version="lints-1",
            context=reading.context,
            context_schema=reading.context_schema,
            propensities=odds,
        )

    async def _enter(self, one: Instrument, bar: BarClosed, decision: ParamDecision, cause: Envelope) -> None:
        names = {"venue": VENUE, "strategy": STRATEGY, "symbol": one.symbol, "timeframe": TIMEFRAME}
        chosen = {"preset_id": decision.preset_id, "model_id": one.model_id, "decision_id": decision.decision_id}
        signal = Signal(
            **names,
            **chosen,
            opened_at=bar.opened_at,
            closed_at=bar.closed_at,
            exposure=1.0,
            exit_reason="",
            regime=one.regime,
        )
        why = await self.teller.tell(signal, "engine", cause)
        quantity = (Decimal(9_000) / Decimal(one.price)).quantize(Decimal("0.00001"))
        order = OrderSubmitted(
            **names,
            **chosen,
            order_id=f"{one.symbol}-{to_ms(bar.opened_at)}",
            at=bar.closed_at,
            side="buy",
            kind="market",
            quantity=quantity,
            price=None,
            reason="signal",
        )
        ordered = await self.teller.tell(order, "engine", why)
        fill = await self._fill(one, order, quantity, ordered)
        one.position = order, fill, (bar.opened_at - BEGIN) // MINUTE

    async def _leave(self, one: Instrument, bar: BarClosed, cause: Envelope) -> None:
        assert one.position is not None
        opening, entry, since = one.position
        order = OrderSubmitted(
            order_id=f"{one.symbol}-{to_ms(bar.opened_at)}",
            venue=VENUE,
            strategy=STRATEGY,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            at=bar.closed_at,
            side="sell",
            kind="market",
            quantity=opening.quantity,
            price=None,
            reason="signal",
            preset_id=opening.preset_id,
            model_id=opening.model_id,
            decision_id=opening.decision_id,
        )
        ordered = await self.teller.tell(order, "engine", cause)
        leaving = await self._fill(one, order, opening.quantity, ordered)
        fees = entry.fee + leaving.fee
        pnl = (leaving.price - entry.price) * entry.quantity - fees
        risk = Decimal("60.00")
        trade = TradeClosed(
            trade_id=opening.order_id,
            venue=VENUE,
            strategy=STRATEGY,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            side="long",
            opened_at=entry.at,
            closed_at=leaving.at,
            bars_held=(bar.opened_at - BEGIN) // MINUTE - since,
            quantity=entry.quantity,
            entry_price=entry.price,
            exit_price=leaving.price,
            fees=fees,
            pnl=pnl,
            risk=risk,
            result_r=float(pnl / risk),
            exit_reason="signal" if pnl > -30 else "stop",
            preset_id=opening.preset_id,
            model_id=opening.model_id,
            decision_id=opening.decision_id,
            regime="BULL",
        )
        closed = await self.teller.tell(trade, "engine", ordered)
        one.position = None
        if opening.decision_id in one.learned:  # a decision has one outcome
            return
        one.learned.add(opening.decision_id)
        outcome = ParamOutcome(
            decision_id=opening.decision_id,
            venue=VENUE,
            strategy=STRATEGY,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            preset_id=opening.preset_id,
            trade_id=trade.trade_id,
            reward=trade.result_r,
            learned_at=leaving.at,
        )
        await self.teller.tell(outcome, "param_controller", closed)

    async def _fill(self, one: Instrument, order: OrderSubmitted, quantity: Decimal, cause: Envelope) -> TradeFill:
        price = Decimal(one.price).quantize(Decimal("0.01"))
        fill = TradeFill(
            venue=VENUE,
            strategy=STRATEGY,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            trade_id=str(to_ms(order.at) % 10**9),
            order_id=order.order_id,
            side=order.side,
            quantity=quantity,
            price=price,
            fee=(quantity * price * FEE).quantize(Decimal("0.00000001")),
            fee_asset="USDT",
            at=order.at,
        )
        sign = 1 if order.side == "sell" else -1
        self.cash += sign * quantity * price - fill.fee
        self.fees += fill.fee
        await self.teller.tell(fill, "engine", cause)
        return fill

    async def _snapshot(self) -> None:
        positions = tuple(
            Position(
                strategy=STRATEGY,
                symbol=one.symbol,
                timeframe=TIMEFRAME,
                quantity=one.position[1].quantity,
                entry_price=one.position[1].price,
                mark_price=one.price,
                unrealized=(Decimal(one.price) - one.position[1].price) * one.position[1].quantity,
                preset_id=one.position[0].preset_id,
            )
            for one in self.instruments
            if one.position is not None
        )
        inventory = sum((one.quantity * Decimal(one.mark_price) for one in positions), Decimal(0))
        await self.teller.tell(
            PortfolioSnapshot(
                account="main",
                at=self.at,
                cash=self.cash,
                equity=(self.cash + inventory).quantize(Decimal("0.00000001")),
                fees=self.fees,
                positions=positions,
            ),
            "engine",
        )

    async def _promote_model(self, one: Instrument, bar: BarClosed) -> None:
        model_id, manifest = await self._train(one, bar, "cold", {"log_likelihood": PROMISED, "temperature": 1.25})
        reasons = ("held_out_gain 0.41 >= 0.05 a bar", "states_used 3 >= 3")
        await self._record("model", one, model_id, "champion", reasons)
        promoted = ModelPromoted(
            model_id=model_id,
            venue=VENUE,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            manifest=manifest,
            evidence_id=f"evidence-{model_id[:8]}",
            promoted_at=bar.closed_at,
        )
        await self.teller.tell(promoted, "governor")
        one.model_id = model_id

    async def _refuse_model(self, one: Instrument, bar: BarClosed) -> None:
        scores = {"log_likelihood": PROMISED + 0.03, "agreement": 0.71, "temperature": 1.0}
        model_id, _ = await self._train(one, bar, "warm", scores)
        await self._record("model", one, model_id, "refused", ("agreement must be >= 0.8, was 0.71",))

    async def _train(
        self, one: Instrument, bar: BarClosed, how: Literal["cold", "warm"], scores: dict[str, float]
    ) -> tuple[str, bytes]:
        """A candidate is told; its id and its manifest."""
        model_id = sha256(f"{how} model {one.symbol}".encode()).hexdigest()
        seen = Span(first=BEGIN, last=bar.opened_at, bars=(bar.opened_at - BEGIN) // MINUTE, data_sha256="0" * 64)
        manifest = manifest_bytes(
            ModelManifest(
                model_id=model_id,
                venue=VENUE,
                symbol=one.symbol,
                timeframe=TIMEFRAME,
                feature_schema="story-1",
                labels=("BULL", "BEAR", "CHOP"),
                how=how,
                trained_on=seen,
                held_out=seen,
                scores=scores,
                seed=0,
                starts=1,
                tag="",
                is_synthetic=False,
                code_version="0.1.0",
                trained_at=self.at,
            )
        )
        trained = ModelTrained(
            model_id=model_id,
            symbol=one.symbol,
            venue=VENUE,
            timeframe=TIMEFRAME,
            manifest=manifest,
            trained_on=seen,
            metric_name="log_likelihood",
            metric_value=scores["log_likelihood"],
            is_synthetic=False,
            trained_at=self.at,
        )
        await self.teller.tell(trained, "ml_service")
        return model_id, manifest

    async def _judge_preset(self, one: Instrument, n: int, *, passes: bool) -> None:
        name, _ = one.preset(n if passes else n + 7)
        if passes:
            await self._record("preset", one, name, "champion", ("net_return 0.034 > 0.0", "trades 31 >= 10"))
            await self._admit(one, n, f"evidence-{name[:8]}")
            return
        reasons = ("net_return must be > 0.0, was -0.012", "max_drawdown must be <= 0.10, was 0.13")
        await self._record("preset", one, name, "refused", reasons)
        refused = PresetRefused(
            preset_id=name,
            venue=VENUE,
            strategy=STRATEGY,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            reasons=reasons,
            evidence_id=f"evidence-{name[:8]}",
            refused_at=self.at,
        )
        await self.teller.tell(refused, "governor")

    async def _admit(self, one: Instrument, n: int, evidence_id: str) -> None:
        name, content = one.preset(n)
        one.presets = [name] if n == 0 else [*one.presets, name]
        promoted = PresetPromoted(
            preset_id=name,
            preset=content,
            venue=VENUE,
            strategy=STRATEGY,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            evidence_id=evidence_id,
            promoted_at=self.at,
        )
        await self.teller.tell(promoted, "governor")

    async def _record(self, kind: str, one: Instrument, name: str, after: str, reasons: tuple[str, ...]) -> None:
        self.sequence += 1
        own = sha256(f"{self.last_hash}{name}".encode()).hexdigest()
        change = StageChanged(
            sequence=self.sequence,
            kind="model" if kind == "model" else "preset",
            subject_id=name,
            venue=VENUE,
            strategy="" if kind == "model" else STRATEGY,
            symbol=one.symbol,
            timeframe=TIMEFRAME,
            before="candidate",
            after="champion" if after == "champion" else "refused",
            reasons=reasons,
            profile="demo-1",
            evidence_id=f"evidence-{name[:8]}",
            actor="gate",
            changed_at=self.at,
            previous_hash=self.last_hash,
            hash=own,
        )
        self.last_hash = own
        await self.teller.tell(change, "governor")


def a_basket(minute: int) -> MarketRegime:
    """Two instruments, read as one market at this minute."""
    return MarketRegime(
        venue=VENUE,
        timeframe=TIMEFRAME,
        members=("BTC-USDT", "ETH-USDT"),
        opened_at=BEGIN + minute * MINUTE,
        regime="BEAR",
        bull=0.1,
        bear=0.7,
        chop=0.2,
        model_id="b" * 64,
        reading_hash="0" * 64,
        log_likelihood=-1.0,
    )


async def show(port: int) -> None:
    """The page on this story: 400 bars at once, then one each half second."""
    bus = MemoryServer()
    story = Story(MemoryBus(bus))
    await story.begin()
    await story.bars(400)
    async with served(bus, port, login_secret="story") as page:
        print(f"{page.address}/?login=story")
        for beat in itertools.count():
            await story.bars(1)
            if beat % 2 == 0:
                await story.health(page.host.clock.wall())
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(show(int(sys.argv[1])))
