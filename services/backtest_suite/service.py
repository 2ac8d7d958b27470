"""Searches presets when they are due, gives evidence when the governor orders it, and runs backtests that people order.

It proposes and reports; which preset is used is the governor's to say.
"""

from __future__ import annotations

import asyncio

from services.backtest_suite.bars import Ingester
from services.backtest_suite.evidence import evidence, first_needed, strategy_of
from services.backtest_suite.jobs import JOB_TABLES, Jobs
from services.backtest_suite.routes import routes
from services.backtest_suite.searches import TABLES, Searches
from services.backtest_suite.settings import BacktestSettings
from shared.contracts.errors import BadMessage
from shared.contracts.governance import PresetPromoted, PresetRefused, StageChanged
from shared.contracts.jobs import EvidenceOrdered, no_evidence
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.subjects import (
    BACKTEST_ORDERED,
    BAR_CLOSED,
    EVIDENCE_GIVEN,
    EVIDENCE_ORDERED,
    GAP_FOUND,
    PRESET_PROMOTED,
    PRESET_REFUSED,
    STAGE_CHANGED,
)
from shared.runtime.listening import Effects
from shared.runtime.service import Host, Service
from shared.trading.strategies import find_strategy, load_all, of_one_instrument

LINGER_S = 0.2  # bars are only counted: whatever came together is one transaction; who waits for us hurries us


async def serve(host: Host[BacktestSettings]) -> None:
    """Bars in, candidates out when a search is due; evidence when it is ordered."""
    settings = host.settings
    every = load_all(settings.strategies_folder)
    strategies = of_one_instrument(every)
    for name in settings.strategies:
        find_strategy(name, strategies)  # raises NeedsOperator with the nearest right name
    ingester = Ingester(settings.address_of("ingester"))
    host.closers.append(ingester.close)
    searches = Searches(host, strategies, ingester)
    jobs = Jobs(host, every, ingester)

    async def on_bar(bar: BarClosed, effects: Effects) -> None:
        searches.after_bar(bar, effects)
        idle_until_ms = searches.idle_until_ms(bar)
        series = bar.venue, bar.symbol, bar.timeframe
        host.progress.reaches(effects, *series, bar.opened_at, idle_until_ms=idle_until_ms)

    async def on_gap(gap: GapFound, effects: Effects) -> None:
        host.progress.reaches(effects, gap.venue, gap.symbol, gap.timeframe, gap.last_opened_at)

    async def on_evidence_ordered(order: EvidenceOrdered, effects: Effects) -> None:
        if order.worker == "backtest_suite":
            try:
                strategy, params = strategy_of(order, strategies)
                first = first_needed(order, strategy, params)
                bars = await ingester.columns(order.symbol, order.timeframe, first, order.last)
                trials = searches.trials(order.venue, order.strategy, order.symbol, order.timeframe)
                given = await asyncio.to_thread(evidence, order, strategy, params, bars, trials)
            except BadMessage as error:
                given = no_evidence(order, str(error))
            effects.publish(EVIDENCE_GIVEN, given)
        book(effects)

    async def on_promoted(promoted: PresetPromoted, effects: Effects) -> None:
        searches.on_verdict(promoted.preset_id, effects)
        book(effects)

    async def on_refused(refused: PresetRefused, effects: Effects) -> None:
        searches.on_verdict(refused.preset_id, effects)
        book(effects)

    async def on_stage(change: StageChanged, effects: Effects) -> None:
        if change.kind == "preset" and change.after != "candidate":  # what was judged before is only said here
            searches.on_verdict(change.subject_id, effects)
        book(effects)

    def book(effects: Effects) -> None:
        """Say, after the commit, that the message being handled was taken in."""
        if effects.cause is not None:
            message_id = effects.cause.id
            effects.afterwards(lambda: host.progress.booked(message_id))

    if host.web is not None:
        for prefix in ("", "/api/v1"):
            host.web.include_router(routes(host, jobs), prefix=prefix)
    await searches.recover(host.store)
    await host.listen({BAR_CLOSED: on_bar, GAP_FOUND: on_gap}, lambda: LINGER_S)
    await host.listen(
        {
            PRESET_PROMOTED: on_promoted,
            PRESET_REFUSED: on_refused,
            STAGE_CHANGED: on_stage,
            EVIDENCE_ORDERED: on_evidence_ordered,
            BACKTEST_ORDERED: jobs.on_ordered,
        }
    )
    host.spawn(jobs.work_for_ever(), "backtests")


SERVICE = Service("backtest_suite", BacktestSettings, serve, (*TABLES, *JOB_TABLES))
