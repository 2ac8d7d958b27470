"""What the engine says and keeps: every message goes into the journal as well, every changed sleeve into its row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from services.engine.desk import Desk, Sleeve
from services.engine.journal import Journal
from services.engine.records import forget_candidate, halt_row, keep_candidate, keep_sleeve, keep_sleeve_words
from services.engine.settings import EngineSettings
from shared.contracts import subjects
from shared.contracts.execution import Signal, TradeClosed, TradeFill
from shared.contracts.risk import BreakerTripped
from shared.contracts.subjects import Subject
from shared.contracts.wire import Message
from shared.runtime.listening import Effects
from shared.runtime.service import Host


class Keeper:
    """Turns what has happened into effects of the message that is being handled."""

    def __init__(self, host: Host[EngineSettings], desk: Desk, journal: Journal) -> None:
        self.host, self.desk, self.journal = host, desk, journal
        self._touched: dict[str, Sleeve] = {}

    def heard(self, effects: Effects) -> None:
        """Write the message that is being handled into the journal."""
        assert effects.cause is not None  # every handler is called with one
        effects.add(self.journal.row("heard", effects.cause))

    def say(self, effects: Effects, subject: Subject[Any], message: Message) -> str:
        """Tell it after the commit, and write it into the journal."""
        said = effects.publish(subject, message)
        effects.add(self.journal.row("said", said))
        if isinstance(message, (Signal, TradeFill, TradeClosed)):  # decisions of others rest on these
            effects.afterwards(lambda: self.host.progress.told(said.id))
        return said.id

    def touch(self, sleeve: Sleeve) -> None:
        """This sleeve has changed."""
        self._touched[sleeve.name] = sleeve

    def keep(self, effects: Effects) -> None:
        """Keep the sleeves that have changed since the last time."""
        touched, self._touched = self._touched, {}
        for sleeve in touched.values():
            try:
                anew = sleeve.freeze()
            except TypeError as error:  # a strategy's state that is no state
                self.halt(sleeve, str(error), effects)
                continue
            effects.add(keep_sleeve(sleeve.name, sleeve.kept, sleeve.trader.books()))
            effects.add(*(keep_candidate(sleeve.name, name, kept) for name, kept in anew.items()))
            effects.add(*(forget_candidate(sleeve.name, name) for name in sleeve.forget()))

    def halt(self, sleeve: Sleeve, reason: str, effects: Effects) -> None:
        """This sleeve stands still until a person resumes; its last good state stays as it was kept."""
        halted_ms = self.desk.series[sleeve.series].watermark_ms
        sleeve.kept = msgspec.structs.replace(sleeve.kept, halted=reason, halted_ms=halted_ms)
        self._touched.pop(sleeve.name, None)
        effects.add(keep_sleeve_words(sleeve.name, sleeve.kept))
        effects.add(halt_row(self.host.clock.now(), sleeve.name, reason))
        name = f"sleeve-halted-{sleeve.strategy}-{sleeve.symbol}"[:64]
        self.host.alert_in(
            effects, name, "critical", f"{sleeve.name} stands still: {reason} Resume when it is repaired."
        )

    def trip(self, effects: Effects, trips: Iterable[BreakerTripped]) -> None:
        """Keep where trading stands now, and tell what has changed."""
        effects.keep_fact("standing", msgspec.json.encode(self.desk.standing))
        for trip in trips:
            self.say(effects, subjects.BREAKER_TRIPPED, trip)
            if trip.after == "halted":
                effects.add(halt_row(trip.at, trip.breaker, trip.reason))
