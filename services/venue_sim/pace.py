"""When the market takes its next step: so many bars a second, or as fast as everyone has come. Pure.

Lock-step is one wait. A service has come when its progress names the last bar told of every instrument, or a later one
until which it has nothing to do, it holds nothing back, it has taken in what others told it must know before it
decides, and it has booked the fills of resting orders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median

from shared.contracts.operations import Progress
from shared.contracts.subjects import BAR_CLOSED, SUBJECTS

HEARERS = {subject.message.__name__: frozenset(subject.heard_by) for subject in SUBJECTS}
FOLLOWERS = frozenset(BAR_CLOSED.spoken_by) | frozenset(BAR_CLOSED.heard_by)
REMEMBERED = 4096  # ids kept of each service; a Progress carries its last 256, and one is said at least each second
WORK = ("training", "search", "verdict")  # what a service holds its progress for, besides the loop's own decisions
STEPS_KEPT = 4096
JUDGE = "governor"  # it is not waited for, but others must have booked what it told
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

    @property
    def speakers(self) -> tuple[str, ...]:
        """Whose progress matters here."""
        return tuple(dict.fromkeys((*self.services, JUDGE))) if self.services else ()

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

    def sleepers(self, before: Mapping[str, int], last_bars: Mapping[str, int]) -> list[str]:
        """Who is waited for at these bars, and had not come to the bars before them because it was idle."""
        return [
            name
            for name, progress in self._last.items()
            if self._behind(progress, last_bars)
            and any(progress.at.get(series, -1) < opened_at for series, opened_at in before.items())
        ]

    def _behind(self, progress: Progress, last_bars: Mapping[str, int]) -> list[str]:
        return [
            series
            for series, opened_at in last_bars.items()
            if progress.at.get(series, -1) < opened_at and progress.idle_until.get(series, 0) <= opened_at
        ]

    def _missing(self, name: str, last_bars: Mapping[str, int], fills: tuple[int, ...]) -> str:
        progress = self._last.get(name)
        if progress is None:
            return "has said nothing yet"
        if progress.holding:
            return progress.holding
        behind = self._behind(progress, last_bars)
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


class StepTimes:
    """How long the steps of a lock-step took, in seconds: those of the loop itself, and those that waited for work."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=STEPS_KEPT)
        self._bars = 0
        self._steps_s = 0.0
        self._work_s = 0.0

    def took(self, seconds: float, bars: int, reasons: Iterable[str]) -> None:
        """A step of so many bars. `reasons` are what was waited for, as `LockStep.waiting_for` says it."""
        if any(f"({work}" in reason for reason in reasons for work in WORK):
            self._work_s += seconds
            return
        self._steps.append(seconds)
        self._bars += bars
        self._steps_s += seconds

    def shown(self) -> dict[str, float]:
        """For people: the median step, bars a second, and the time that went to work on top."""
        return {
            "step_p50_ms": round(1e3 * median(self._steps), 2) if self._steps else 0.0,
            "bars_per_s": round(self._bars / self._steps_s, 1) if self._steps_s else 0.0,
            "work_s": round(self._work_s, 2),
        }


def _remember(kept: dict[str, None], ids: Iterable[str]) -> None:
    kept.update(dict.fromkeys(ids))
    while len(kept) > REMEMBERED:
        del kept[next(iter(kept))]
