"""One market of several instruments: the bars of an equally weighted index, and how its regimes go with its members'.

The index has no price of its own: a bar moves as far as its members did on average, in log returns since each one's
last close, and so do its high and its low (which overstates its range: members seldom peak at the same instant). A
member without a bar in a slot does not count there. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from shared.regimes.features import Candle, Prices

BASKET = "MARKET"  # what the index is called where an instrument has its symbol
FIRST_LEVEL = 100.0
PRIOR_BARS = 9.0  # as if each pair of regimes had been seen once before any bar

TABLES = ("create table indexes (series text primary key, state blob not null) without rowid",)

Odds = Sequence[float]  # (3,) of BULL, BEAR, CHOP


class IndexState(msgspec.Struct):
    """What a restart must know."""

    members: tuple[str, ...]
    level: float = FIRST_LEVEL
    closes: dict[str, float] = {}  # member -> its last close
    reached: dict[str, int] = {}  # member -> opened-at (ms) of its last bar or gap
    waiting: dict[int, dict[str, Candle]] = {}  # opened-at (ms) -> the bars of a slot that is not complete
    pairs: dict[str, list[float]] = {}  # member -> (9,) sums of market odds times its odds, row by row


class Index:
    """Bars and gaps of members in, bars of the index out, each when no member can have another one in its slot."""

    def __init__(self, state: IndexState) -> None:
        self.state = state

    def on_bar(self, symbol: str, opened_ms: int, bar: Prices) -> list[tuple[int, Candle]]:
        """Take a member's closed bar; the index's bars that are complete by it, oldest first."""
        candle = Candle(bar.open, bar.high, bar.low, bar.close, bar.volume)
        self.state.waiting.setdefault(opened_ms, {})[symbol] = candle
        return self.on_gap(symbol, opened_ms)

    def on_gap(self, symbol: str, last_ms: int) -> list[tuple[int, Candle]]:
        """A member has no bar up to this one (opened-at, ms)."""
        state = self.state
        state.reached[symbol] = max(last_ms, state.reached.get(symbol, last_ms))
        if len(state.reached) < len(state.members):
            return []  # who has not begun may still have a past
        complete = sorted(ms for ms in state.waiting if ms <= min(state.reached.values()))
        return [(ms, bar) for ms in complete if (bar := self._bar(state.waiting.pop(ms))) is not None]

    def _bar(self, slot: Mapping[str, Candle]) -> Candle | None:
        """The index's bar of these; None when each of them is its member's first."""
        state = self.state
        known = [(bar, state.closes[symbol]) for symbol, bar in sorted(slot.items()) if symbol in state.closes]
        state.closes.update({symbol: bar.close for symbol, bar in slot.items()})
        if not known:
            return None
        before = state.level
        opened, high, low, closed = (
            before * math.exp(math.fsum(math.log(bar[i] / last) for bar, last in known) / len(known)) for i in range(4)
        )
        state.level = closed
        # exp and log round: the ends must stay within the range that they had.
        high, low = max(high, opened, closed), min(low, opened, closed)
        return Candle(opened, high, low, closed, math.fsum(bar.volume * bar.close for bar, _ in known))

    def pair(self, symbol: str, market: Odds, member: Odds) -> None:
        """Remember that these were believed of the same bar."""
        sums = self.state.pairs.setdefault(symbol, [0.0] * 9)
        for i, p in enumerate(market):
            for j, q in enumerate(member):
                sums[3 * i + j] += p * q


def index_of(members: Mapping[str, Iterable[tuple[int, Candle]]]) -> Iterator[tuple[int, Candle]]:
    """The index's bars over the members' histories: the same as live."""
    index = Index(IndexState(tuple(members)))
    told = sorted((ms, symbol, bar) for symbol, bars in members.items() for ms, bar in bars)
    for symbol in members:  # all have begun: none has a past before what is given
        index.state.reached[symbol] = told[0][0] - 1 if told else 0
    for ms, symbol, bar in told:
        yield from index.on_bar(symbol, ms, bar)
    if told:
        for symbol in members:
            yield from index.on_gap(symbol, told[-1][0])


def joint(sums: Sequence[float]) -> list[list[float]]:
    """The share (3, 3) of bars in each pair of market regime (row) and member regime (column)."""
    total = math.fsum(sums) + PRIOR_BARS
    return [[(sums[3 * i + j] + PRIOR_BARS / 9.0) / total for j in range(3)] for i in range(3)]


def shared_bits(pairs: Sequence[Sequence[float]]) -> float:
    """How much the market's regime tells of the member's: their mutual information, bits. 0: nothing."""
    rows = [math.fsum(row) for row in pairs]
    columns = [math.fsum(row[j] for row in pairs) for j in range(3)]
    return math.fsum(
        p * math.log2(p / (rows[i] * columns[j])) for i, row in enumerate(pairs) for j, p in enumerate(row)
    )


def coupled(member: Odds, market: Odds, pairs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """A member's odds when the market's are known as well: Bayes' rule, with what `pairs` says of both at once.

    Its own bars and the market's are taken as two witnesses that know of each other only through the regimes.
    """
    rows = [math.fsum(row) for row in pairs]
    columns = [math.fsum(row[j] for row in pairs) for j in range(3)]
    weights = [
        q * math.fsum(p * pairs[i][j] / (rows[i] * columns[j]) for i, p in enumerate(market))
        for j, q in enumerate(member)
    ]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)
