"""When the market takes its next step: so many bars a second, or as fast as everyone has come. Pure.

Lock-step is one wait. A service has come when its progress names the last bar told of every instrument, it holds
nothing back, it has taken in what others told it must know before it decides, and it has booked the fills of resting
orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.contracts.operations import Progress
from shared.contracts.subjects import BAR_CLOSED, SUBJECTS

HEARERS = {subject.message.__name__: frozenset(subject.heard_by) for subject in SUBJECTS}
FOLLOWERS = frozenset(BAR_CLOSED.spoken_by) | frozenset(BAR_CLOSED.heard_by)
REMEMBERED = 4096  # ids kept of each service; a Progress carries its last 256, and one is said at least each second
BOOKKEEPER = "engine"  # it alone has orders at the venue


class LockStep:
    """What the named services have said of themselves, and whom that leaves to wait for."""

    def __init__(self, services: Iterable[str], *, goes_on: bool = False) -> None:
        """`goes_on`: the market was played before. Then what a service had told when it is first heard is settled:
        those who booked it may have it no longer among their last 256."""
        self._goes_on = goes_on
        self.services = tuple(services)
        self._last: dict[str, Progress] = {}
        self._tellers: set[str] = set()
        self._told: dict[str, None] = {}  # a dict keeps the order
        self._booked: dict[str, dict[str, None]] = {name: {} for name in self.services}
        self._owed: dict[str, dict[str, None]] = {name: {} for name in self.services}  # told, and not booked yet

    def hear(self, progress: Progress) -> None:
        """Take a service's word. Those that are not waited for may say what others must book."""
        name = progress.service
        new = [told for told in progress.told if told not in self._told]
        _remember(self._told, new)
        if name in self._tellers or not self._goes_on:
            for told in new:
                for hearer in HEARERS.get(told.partition(":")[0], frozenset()) & self._owed.keys():
                    if told not in self._booked[hearer]:
                        self._owed[hearer][told] = None
        self._tellers.add(name)
        if name in self._booked:
            self._last[name] = progress
            _remember(self._booked[name], progress.booked)
            for booked in progress.booked:
                self._owed[name].pop(booked, None)

    def waiting_for(
        self, last_bars: Mapping[str, int], fills: Iterable[int] = (), *, is_history: bool = False
    ) -> list[str]:
        """Who is not there yet, and why, in words; empty when the next step may be taken.

        `last_bars` is "SYMBOL.TIMEFRAME" -> opened-at (ms) of the last bar told; `fills` are ids of trades that the
        user stream told of. While all of it `is_history` who does not follow bars has come: it decides on readings, and
        there are none before the market moves.
        """
        return [
            f"{name} ({reason})"
            for name in self.services
            if (reason := self._missing(name, {} if is_history and name not in FOLLOWERS else last_bars, tuple(fills)))
        ]

    def _missing(self, name: str, last_bars: Mapping[str, int], fills: tuple[int, ...]) -> str:
        progress = self._last.get(name)
        if progress is None:
            return "has said nothing yet"
        if progress.holding:
            return progress.holding
        behind = [series for series, opened_at in last_bars.items() if progress.at.get(series, -1) < opened_at]
        if behind:
            return f"is behind on {', '.join(behind)}"
        if self._owed[name]:
            return f"has not booked {next(iter(self._owed[name]))}"
        if name == BOOKKEEPER and fills:
            # A trade's id may stand alone or end the key of its fill (`sim.BTC-USDT.17`).
            known = {entry.rpartition(".")[2] for entry in self._booked[name]}
            absent = [fill for fill in fills if str(fill) not in known]
            if absent:
                return f"has not booked trade {absent[0]}"
        return ""


def _remember(kept: dict[str, None], ids: Iterable[str]) -> None:
    kept.update(dict.fromkeys(ids))
    while len(kept) > REMEMBERED:
        del kept[next(iter(kept))]
