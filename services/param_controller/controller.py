"""What may be chosen for each sleeve, the choice, and the lesson from it. Pure.

The epochs of a sleeve follow one another without overlap: a decision is made on reading *t*, stands for at least
`epoch_bars` and until the trades entered under it have closed, and then gives one outcome in the same breath as the
next decision is made. Trades of one epoch are summed: a preset that was right twice earned it twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from services.param_controller.bandit import LinTS, chance
from services.param_controller.holding import Holding, after_close, after_fill, after_signal, at_bar
from services.param_controller.sleeves import (
    Arm,
    Earned,
    Key,
    Lesson,
    Policy,
    Series,
    Sleeve,
    Turn,
    key_of,
    lesson_of,
    series_of,
)
from shared.artifacts.presets import default_preset, preset_bytes, preset_from_bytes, preset_id
from shared.contracts.execution import Signal, TradeClosed, TradeFill
from shared.contracts.governance import PresetDemoted, PresetPromoted
from shared.contracts.parameters import ParamDecision, decision_id
from shared.contracts.regime import RegimeReading
from shared.contracts.times import EPOCH, FOR_EVER_MS, from_ms, timeframe_length
from shared.trading.strategy import Strategy

NEVER = from_ms(FOR_EVER_MS)


class ParamController:
    """Readings, trades and promotions in; decisions and lessons out."""

    def __init__(self, strategies: Mapping[str, Strategy], policy: Policy, *, has_defaults: bool) -> None:
        """`has_defaults`: strategies' own parameters are admitted from birth. On paper; never live."""
        self.strategies, self.policy, self._has_defaults = strategies, policy, has_defaults
        self.sleeves: dict[Key, Sleeve] = {}
        self.readings: dict[Series, RegimeReading] = {}

    # what was kept

    def recover(
        self,
        arms: Iterable[tuple[Key, str, Arm]],
        lessons: Iterable[tuple[Key, Lesson]],
        decisions: Iterable[ParamDecision],
        trades: Iterable[tuple[Key, str, Earned]],
        holdings: Iterable[tuple[Key, Holding]],
        readings: Iterable[RegimeReading],
    ) -> None:
        """Become what we were: all lessons again in the order in which they were learned, then the last of the rest.

        `decisions` are the last one of each sleeve; `trades` carry the id of the decision they were entered under.
        """
        for key, name, arm in arms:
            if self._is_ours(key, arm.preset, name):
                self._known(key).arms[name] = arm
        taught: set[str] = set()
        for key, lesson in lessons:
            self.learn(key, lesson)
            taught.add(lesson.outcome.decision_id)
        for decision in decisions:
            sleeve = self._known(key_of(decision))
            sleeve.current, sleeve.is_taught = decision, decision.decision_id in taught
        for key, under, trade in trades:
            sleeve = self._known(key)
            if sleeve.current is not None and sleeve.current.decision_id == under:
                sleeve.earned.append(trade)
        for key, holding in holdings:
            self._known(key).holding = holding
        for reading in readings:
            self.hear(reading)

    def sleeve(self, key: Key) -> Sleeve | None:
        """The sleeve of this name, or None when its strategy is not traded here."""
        return self._known(key) if key.strategy in self.strategies else None

    def _known(self, key: Key) -> Sleeve:
        sleeve = self.sleeves.get(key)
        if sleeve is None:
            sleeve = self.sleeves[key] = Sleeve(key)
            strategy = self.strategies.get(key.strategy)
            if self._has_defaults and strategy is not None:
                preset = default_preset(strategy, key.symbol, key.timeframe)
                sleeve.arms[preset_id(preset)] = Arm(preset=preset_bytes(preset), since=EPOCH)
        return sleeve

    # what is heard

    def hear(self, reading: RegimeReading) -> list[Sleeve]:
        """Take a reading in; returns the sleeves that stand on its series."""
        series = series_of(reading)
        last = self.readings.get(series)
        if last is None or last.opened_at <= reading.opened_at:
            self.readings[series] = reading
        keys = [Key(reading.venue, name, reading.symbol, reading.timeframe) for name in sorted(self.strategies)]
        return [self._known(key) for key in keys]

    def promote(self, said: PresetPromoted) -> Arm | None:
        """A preset may be chosen from the next closed bar on. None when its strategy is not traded here.

        Raises BadMessage when its bytes are not what its id says; a preset of other code is not admitted here.
        """
        sleeve = self.sleeve(key_of(said))
        if sleeve is None or not self._is_ours(sleeve.key, said.preset, said.preset_id):
            return None
        arm = sleeve.arms[said.preset_id] = Arm(preset=said.preset, since=said.promoted_at)
        return arm

    def demote(self, said: PresetDemoted) -> Arm | None:
        """A preset is chosen no more. None when we did not know it."""
        sleeve = self.sleeve(key_of(said))
        if sleeve is None or said.preset_id not in sleeve.arms:
            return None
        arm = msgspec.structs.replace(sleeve.arms[said.preset_id], until=said.demoted_at)
        sleeve.arms[said.preset_id] = arm
        return arm

    def _is_ours(self, key: Key, preset: bytes, name: str) -> bool:
        """Whether the preset is for a strategy that is traded here, in the code that we have."""
        strategy = self.strategies.get(key.strategy)
        return strategy is not None and preset_from_bytes(preset, name).source_hash == strategy.source

    def on_execution(self, said: Signal | TradeFill | TradeClosed, on_bar: datetime = EPOCH) -> Sleeve | None:
        """What the engine wants, did and earned, on the bar that opened then. Returns the sleeve, or None when it is
        not ours. An epoch that ends by it does so on no reading of an older bar, whichever message was faster."""
        sleeve = self.sleeve(key_of(said))
        if sleeve is None:
            return None
        match said:
            case Signal():
                sleeve.holding = after_signal(sleeve.holding, said)
            case TradeFill():
                sleeve.holding = after_fill(sleeve.holding, said)
            case TradeClosed():
                sleeve.holding = after_close(sleeve.holding, said, on_bar)
                if sleeve.current is not None and sleeve.current.decision_id == said.decision_id:
                    sleeve.earned.append(Earned(said.closed_at, said.trade_id, said.result_r))
        return sleeve

    # what is decided

    def may_be_due(self, sleeve: Sleeve, reading: RegimeReading) -> bool:
        """Whether a decision may fall on this reading, for all that is known before the engine has come to its bar."""
        if reading.is_history or self._waits_for_its_trade(sleeve) or reading.opened_at < sleeve.holding.settled_on:
            return False
        current, closed_at = sleeve.current, reading.happened_at
        if current is None or current.preset_id not in sleeve.admitted(closed_at):
            return True
        age = (reading.opened_at - current.decided_on) // timeframe_length(reading.timeframe)
        return age >= self.policy.epoch_bars

    def idle_until(self, reading: RegimeReading) -> datetime:
        """Opened-at of the first bar after this reading's on which a decision of its series may fall due.

        While positions are held that may be for ever: that a trade has closed will change it.
        """
        length = timeframe_length(reading.timeframe)
        soonest = reading.opened_at + length
        epochs = (
            soonest
            if sleeve.current is None or sleeve.current.preset_id not in sleeve.admitted(soonest + length)
            else sleeve.current.decided_on + self.policy.epoch_bars * length
            for sleeve in self.hear(reading)
            if not self._waits_for_its_trade(sleeve)
        )
        return max(soonest, min(epochs, default=NEVER))

    def _waits_for_its_trade(self, sleeve: Sleeve) -> bool:
        """Whether the epoch cannot end before the trade that was entered under it has closed."""
        current = sleeve.current
        return current is not None and sleeve.holding.is_filled and _is_held(sleeve, current)

    def turn(self, sleeve: Sleeve, reading: RegimeReading) -> Turn | None:
        """End the epoch and begin the next, if that is due. Everything up to this reading's close must be known."""
        closed_at = reading.happened_at
        sleeve.holding = at_bar(sleeve.holding, closed_at, reading.timeframe)
        arms = sleeve.admitted(closed_at)
        if not arms or not self.may_be_due(sleeve, reading):
            return None
        current = sleeve.current
        if current is not None and (current.decided_on >= reading.opened_at or _is_held(sleeve, current)):
            return None
        lesson = None if current is None or sleeve.is_taught else lesson_of(sleeve, current, closed_at)
        if lesson is not None:
            self.learn(sleeve.key, lesson)
        decision = self._decision(sleeve, arms, reading)
        sleeve.current, sleeve.is_taught, sleeve.earned = decision, False, []
        return Turn(lesson, decision)

    def learn(self, key: Key, lesson: Lesson) -> None:
        """Fold a lesson into the posterior of its preset. Each is given once, and in the order in which it is kept."""
        sleeve = self._known(key)
        bandit = self.bandit(sleeve, lesson.context_schema, len(lesson.context))
        bandit.learn(lesson.preset_id, lesson.context, lesson.outcome.reward)
        sleeve.lessons += 1
        if sleeve.current is not None and sleeve.current.decision_id == lesson.outcome.decision_id:
            sleeve.is_taught = True

    def bandit(self, sleeve: Sleeve, schema: str, dimension: int) -> LinTS:
        """The posteriors of this sleeve under this context schema: a new schema starts new ones."""
        made = sleeve.bandits.get((schema, dimension))
        if made is None:
            made = LinTS(dimension, l2=self.policy.l2, exploration=self.policy.exploration)
            sleeve.bandits[schema, dimension] = made
        return made

    def choice(
        self, sleeve: Sleeve, arms: Sequence[str], context: tuple[float, ...], schema: str, decided: str
    ) -> tuple[str, dict[str, float], str]:
        """Preset, odds and policy version, of the decision named `decided`. Changes nothing."""
        bandit = self.bandit(sleeve, schema, len(context))
        chosen = bandit.choose(arms, context, chance(self.policy.seed, decided))
        return chosen, bandit.odds(arms, context), f"lints1-{bandit.fingerprint()[:12]}"

    def _decision(self, sleeve: Sleeve, arms: list[str], reading: RegimeReading) -> ParamDecision:
        key = sleeve.key
        name = decision_id(*key, reading.opened_at)
        chosen, odds, version = self.choice(sleeve, arms, reading.context, reading.context_schema, name)
        return ParamDecision(
            decision_id=name,
            venue=key.venue,
            strategy=key.strategy,
            symbol=key.symbol,
            timeframe=key.timeframe,
            preset_id=chosen,
            epoch=1 if sleeve.current is None else sleeve.current.epoch + 1,
            decided_on=reading.opened_at,
            decided_at=reading.happened_at,
            policy_version=version,
            context=reading.context,
            context_schema=reading.context_schema,
            propensities=odds,
        )


def _is_held(sleeve: Sleeve, current: ParamDecision) -> bool:
    return sleeve.holding.under == current.decision_id
