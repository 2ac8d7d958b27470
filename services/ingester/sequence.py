"""Whose turn it is: candles come from two sides, in any order and more than once, and leave once and in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from services.ingester.candles import Candle


class Hole(NamedTuple):
    """Bars that are not there though later ones are, by when the first and the last of them opened (ms)."""

    first: int
    last: int


class Sequence:
    """One series in strict order.

    By opened-at: before its turn it waits, at its turn it leaves, after its turn it is a double and dropped. So frames
    may overtake a fill, and a fill may bring what frames have brought.
    """

    def __init__(self, length: int, next_at: int | None = None) -> None:
        """`length` of a bar and `next_at`, the bar whose turn it is, in ms; None: nothing is known yet."""
        self.length = length
        self.next_at = next_at
        self._early: dict[int, Candle] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether something came that cannot leave, because what is before it has not come."""
        return bool(self._early)

    def begin(self, opened_at: int) -> None:
        """The series begins with this bar."""
        self.next_at = opened_at
        self._forget_doubles()

    def offer(self, candles: Iterable[Candle]) -> list[Candle]:
        """Those that may leave now, with what had waited for them."""
        self._early.update((candle.opened_at, candle) for candle in candles)
        self._forget_doubles()
        leaving: list[Candle] = []
        while self.next_at is not None and self.next_at in self._early:
            leaving.append(self._early.pop(self.next_at))
            self.next_at += self.length
        return leaving

    def holes(self, candles: Iterable[Candle], up_to: int | None) -> list[Hole]:
        """What is missing among these and those that wait, up to the bar `up_to` (None: up to the latest one)."""
        if self.next_at is None:
            return []
        known = {candle.opened_at for candle in candles} | self._early.keys()
        there = sorted(at for at in known if at >= self.next_at and (up_to is None or at <= up_to))
        expected, found = self.next_at, list[Hole]()
        for at in there:
            if at > expected:
                found.append(Hole(expected, at - self.length))
            expected = at + self.length
        return found

    def pass_over(self, hole: Hole) -> Hole | None:
        """Give up those bars of this hole whose turn it is and that have still not come.

        Returns what was passed over, None when it is not their turn any more. Offer again, and ask again, until then.
        """
        if self.next_at is None or not hole.first <= self.next_at <= hole.last:
            return None
        come = [at for at in self._early if self.next_at <= at <= hole.last]
        passed = Hole(self.next_at, min(come) - self.length if come else hole.last)
        self.next_at = passed.last + self.length
        return passed

    def _forget_doubles(self) -> None:
        if self.next_at is not None:
            for at in [at for at in self._early if at < self.next_at]:
                del self._early[at]
