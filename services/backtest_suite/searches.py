"""When a search is due for a sleeve, has it done, proposes what passed, and holds progress until the governor spoke."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime

import msgspec

from services.backtest_suite.bars import Ingester
from services.backtest_suite.presets import PresetSearch, Split
from services.backtest_suite.search import Plan, search
from services.backtest_suite.settings import BacktestSettings
from shared.contracts.errors import BadMessage, NeedsOperator, TryAgain
from shared.contracts.market import BarClosed
from shared.contracts.subjects import PRESET_CANDIDATE
from shared.contracts.times import from_ms, timeframe_length, timeframe_ms, to_ms
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.trading.columns import Columns
from shared.trading.compiled import Failure
from shared.trading.strategy import Strategy

PAUSE_S = (0.1, 0.5, 1.0, 2.0)  # while the ingester is away
TABLES = (
    "create table series (name text primary key, bars integer not null) without rowid",
    "create table sleeves (name text primary key, state blob not null) without rowid",
)
KEEP_SERIES = "insert into series values (?, ?) on conflict (name) do update set bars = excluded.bars"
KEEP_SLEEVE = "insert into sleeves values (?, ?) on conflict (name) do update set state = excluded.state"


class Sleeve(msgspec.Struct):
    """How far the searches for one strategy on one series have come."""

    venue: str
    strategy: str
    symbol: str
    timeframe: str
    searched_ms: int = 0  # last bar of the last search that was done; 0: none was
    searching_ms: int = 0  # last bar of the one under way; 0: none is
    pending: list[str] = msgspec.field(default_factory=list)  # presets on which the governor has not spoken
    trials: int = 0  # parameter sets that were ever run

    @property
    def name(self) -> str:
        return f"{self.venue}.{self.strategy}.{self.symbol}.{self.timeframe}"


class Searches:
    """The searches of all sleeves."""

    def __init__(self, host: Host[BacktestSettings], strategies: Mapping[str, Strategy], ingester: Ingester) -> None:
        self._host, self._strategies, self._ingester = host, strategies, ingester
        self._bars: dict[str, int] = {}  # series -> bars heard
        self._sleeves: dict[str, Sleeve] = {}
        self._holds: dict[str, ExitStack] = {}  # sleeve -> what keeps our progress back
        self._one_at_a_time = asyncio.Lock()  # a search takes all cores

    async def recover(self, store: Store) -> None:
        """Go on where we were: a search that was under way is done again, on the same bars."""
        for name, bars in await store.rows("select name, bars from series"):
            self._bars[name] = bars
        for (blob,) in await store.rows("select state from sleeves"):
            sleeve = msgspec.msgpack.decode(blob, type=Sleeve)
            self._sleeves[sleeve.name] = sleeve
            if sleeve.searching_ms:
                self._hold(sleeve, "search")
                self._start(sleeve)
            elif sleeve.pending:
                self._hold(sleeve, "verdict")

    def trials(self, venue: str, strategy: str, symbol: str, timeframe: str) -> int:
        """Parameter sets that were ever run for this sleeve."""
        sleeve = self._sleeves.get(f"{venue}.{strategy}.{symbol}.{timeframe}")
        return 0 if sleeve is None else sleeve.trials

    def after_bar(self, bar: BarClosed, effects: Effects) -> None:
        """Count it, and begin what is due on it."""
        series = f"{bar.venue}.{bar.symbol}.{bar.timeframe}"
        bars = self._bars[series] = self._bars.get(series, 0) + 1
        effects.execute(KEEP_SERIES, series, bars)
        if bar.is_history or bars < self._host.settings.least_bars:
            return
        for name in self._host.settings.strategies:
            sleeve = Sleeve(bar.venue, name, bar.symbol, bar.timeframe)
            sleeve = self._sleeves.setdefault(sleeve.name, sleeve)
            if self._is_due(sleeve, to_ms(bar.opened_at)):
                sleeve.searching_ms = to_ms(bar.opened_at)
                self._keep(sleeve, effects)
                self._hold(sleeve, "search")
                effects.afterwards(lambda sleeve=sleeve: self._start(sleeve))

    def idle_until_ms(self, bar: BarClosed) -> int:
        """Opened-at of the first bar after this one on which a search may fall due."""
        bar_ms, settings = timeframe_ms(bar.timeframe), self._host.settings
        bars = self._bars[f"{bar.venue}.{bar.symbol}.{bar.timeframe}"]
        enough_ms = to_ms(bar.opened_at) + max(1, settings.least_bars - bars) * bar_ms
        names = (Sleeve(bar.venue, name, bar.symbol, bar.timeframe).name for name in settings.strategies)
        last_ms = [each.searching_ms or each.searched_ms for name in names if (each := self._sleeves.get(name))]
        if len(last_ms) < len(settings.strategies):
            return enough_ms
        return max(enough_ms, min(last_ms) + settings.search_bars * bar_ms)

    def on_verdict(self, subject_id: str, effects: Effects) -> None:
        """The governor has spoken on a preset: after its last word on a sleeve's presets progress goes on."""
        for sleeve in self._sleeves.values():
            if subject_id in sleeve.pending:
                sleeve.pending.remove(subject_id)
                self._keep(sleeve, effects)
                if not sleeve.pending:
                    effects.afterwards(lambda sleeve=sleeve: self._let_go(sleeve))

    def _is_due(self, sleeve: Sleeve, opened_ms: int) -> bool:
        waited = (opened_ms - sleeve.searched_ms) // timeframe_ms(sleeve.timeframe)
        return not sleeve.searching_ms and not sleeve.pending and waited >= self._host.settings.search_bars

    def _start(self, sleeve: Sleeve) -> None:
        self._host.spawn(self._search(sleeve), f"search {sleeve.name}")

    async def _search(self, sleeve: Sleeve) -> None:
        settings = self._host.settings
        split = Split(
            train=settings.train_share,
            test=settings.test_share,
            tested=settings.tested,
            best=settings.best,
            least_trades=settings.least_trades,
        )
        plan = Plan(split, settings.sets, settings.seed, settings.threads or None)
        strategy, last = self._strategies[sleeve.strategy], from_ms(sleeve.searching_ms)
        found: PresetSearch | None = None
        failure = ""
        async with self._one_at_a_time:
            try:
                bars = await self._patiently(sleeve, last)
                found = await asyncio.to_thread(
                    search, strategy, bars, sleeve.symbol, sleeve.timeframe, settings.costs, plan
                )
            except (BadMessage, NeedsOperator, Failure) as error:  # of these bars, or of the strategy: others go on
                failure = str(error)
        candidates = [] if found is None else found.candidates(sleeve.venue)

        async def end(effects: Effects) -> None:
            sleeve.searched_ms, sleeve.searching_ms = sleeve.searching_ms, 0
            sleeve.trials += 0 if found is None else found.trials
            for candidate in candidates:
                if candidate.preset_id not in sleeve.pending:
                    sleeve.pending.append(candidate.preset_id)
                    effects.publish(PRESET_CANDIDATE, candidate)
                    self._host.log.info("preset.candidate", sleeve=sleeve.name, preset=candidate.preset_id[:12])
            self._keep(sleeve, effects)
            if failure:
                text = f"No search for {sleeve.strategy} on {sleeve.symbol} {sleeve.timeframe}: {failure}"
                self._host.alert_in(effects, f"search_failed_{sleeve.strategy}_{sleeve.symbol}", "warning", text)
            if sleeve.pending:
                self._hold(sleeve, "verdict")
            else:
                effects.afterwards(lambda: self._let_go(sleeve))

        await self._host.act(end)
        self._host.log.info(
            "search.done",
            sleeve=sleeve.name,
            until=f"{last:%Y-%m-%d %H:%M}",
            tried=0 if found is None else len(found.tried),
            passed=len(candidates),
        )

    async def _patiently(self, sleeve: Sleeve, last: datetime) -> Columns:
        """The window's bars, once the ingester has the last of them."""
        first = last - (self._host.settings.window_bars - 1) * timeframe_length(sleeve.timeframe)
        attempt = 0
        while True:
            try:
                bars = await self._ingester.columns(sleeve.symbol, sleeve.timeframe, first, last)
                if len(bars) and int(bars.opened_at_ms[-1]) == to_ms(last):
                    return bars
                raise TryAgain(f"The ingester does not yet hold {sleeve.symbol} {last:%Y-%m-%d %H:%M}.")
            except TryAgain as error:
                pause = PAUSE_S[min(attempt, len(PAUSE_S) - 1)]
                attempt += 1
                self._host.log.warning("search.retry", sleeve=sleeve.name, attempt=attempt, error=str(error))
                await asyncio.sleep(pause)

    def _keep(self, sleeve: Sleeve, effects: Effects) -> None:
        effects.execute(KEEP_SLEEVE, sleeve.name, msgspec.msgpack.encode(sleeve))

    def _hold(self, sleeve: Sleeve, reason: str) -> None:
        """Keep progress where it is. The new reason is there before the old one goes."""
        stack = ExitStack()
        stack.enter_context(self._host.progress.hold(f"{reason} {sleeve.strategy} {sleeve.symbol}"))
        self._let_go(sleeve)
        self._holds[sleeve.name] = stack

    def _let_go(self, sleeve: Sleeve) -> None:
        if stack := self._holds.pop(sleeve.name, None):
            stack.close()
