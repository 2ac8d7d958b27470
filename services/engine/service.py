"""The engine as a service: settings to a venue, rows to a desk, messages to handlers. Start and recovery are one path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import ROUND_FLOOR, Decimal

import msgspec

from services.engine import journal, orders, records
from services.engine.breakers import Standing
from services.engine.desk import Desk, Series, Sleeve
from services.engine.engine import Engine
from services.engine.executor import Executor
from services.engine.journal import Journal
from services.engine.keeper import Keeper
from services.engine.reconciliation import Reconciliation
from services.engine.records import KeptSeries
from services.engine.settings import EngineSettings
from services.engine.venues import MakeVenue, Rules, connect
from shared.artifacts.models import load_model
from shared.artifacts.presets import default_preset, preset_id
from shared.artifacts.signing import trusted_manifest
from shared.contracts import subjects
from shared.contracts.errors import BadMessage, NeedsOperator, TryAgain
from shared.contracts.instruments import Instrument
from shared.contracts.times import timeframe_ms
from shared.regimes.hmm import RegimeModel
from shared.regimes.reader import BARS_TO_RESUME, RegimeReader
from shared.runtime.service import Host, Service
from shared.runtime.store import keep_fact
from shared.trading.snapshots import KeptCandidate
from shared.trading.strategies import find_strategy, load_strategies
from shared.trading.strategy import Strategy
from shared.trading.trader import KEPT_BARS, Trader
from shared.trading.values import Bar, Regime

CENT = Decimal("0.01")
RETRY_S = 1.0


async def serve(host: Host[EngineSettings]) -> None:
    """Bars in, orders out, at the venue that the settings name."""
    rules, make_venue = connect(host.settings)
    await serve_at(host, rules, make_venue)


async def serve_at(host: Host[EngineSettings], rules: Rules, make_venue: MakeVenue) -> None:
    """The same at any venue. `rules` tells what can be traded, `make_venue` where."""
    settings = host.settings
    host.health.is_missing("venue")
    instruments = await _patiently(host, lambda: rules(settings.symbols))
    unknown = [symbol for symbol in settings.symbols if symbol not in instruments]
    if not instruments:
        raise NeedsOperator(
            f"The venue {settings.venue} trades none of {', '.join(settings.symbols)}: set TRADE_SYMBOLS."
        )
    desk = await _recovered_desk(host, instruments)
    keeper = Keeper(host, desk, await Journal.recover(host.store))
    venue = make_venue(desk, instruments)
    host.closers.append(venue.close)
    executor = Executor(host, desk, venue, keeper)
    await executor.recover()
    reconciliation = Reconciliation(executor)
    await reconciliation.begin()
    host.health.is_there("venue")
    engine = Engine(host, desk, executor, keeper)
    if host.web is not None:
        from services.engine.routes import routes  # FastAPI only where it serves

        for prefix in ("", "/api/v1"):
            host.web.include_router(routes(host, desk, venue.name), prefix=prefix)
    if unknown:
        text = f"{settings.venue} does not trade {', '.join(unknown)}; the others go on."
        await host.alert("unknown-symbols", "warning", text)
    for sleeve in desk.sleeves.values():
        if sleeve.kept.halted:
            text = f"{sleeve.name} stands still: {sleeve.kept.halted} Resume when it is repaired."
            await host.alert(f"sleeve-halted-{sleeve.strategy}-{sleeve.symbol}"[:64], "critical", text)
    await engine.say_how_far()
    await host.listen(
        {
            subjects.BAR_CLOSED: engine.on_bar,
            subjects.GAP_FOUND: engine.on_gap,
            subjects.MODEL_PROMOTED: engine.on_model,
            subjects.MODEL_DEMOTED: engine.on_model,
            subjects.PRESET_PROMOTED: engine.on_preset,
            subjects.PRESET_DEMOTED: engine.on_preset,
            subjects.PARAM_DECISION: engine.on_decision,
            subjects.PAUSE: engine.on_command,
            subjects.RESUME: engine.on_command,
            subjects.FLATTEN: engine.on_command,
            subjects.HALT: engine.on_command,
        }
    )
    host.spawn(executor.hear_venue(), "venue")
    host.spawn(reconciliation.for_ever(settings.reconcile_s), "reconciliation")


SERVICE = Service(
    "engine", EngineSettings, serve, (*journal.TABLES, *records.TABLES, *orders.TABLES), synchronous="FULL"
)


async def _patiently(
    host: Host[EngineSettings], ask: Callable[[], Awaitable[dict[str, Instrument]]]
) -> dict[str, Instrument]:
    """The venue's rules, however long it takes until it can be reached. Until then the service is not ready."""
    while True:
        try:
            return await ask()
        except TryAgain as error:
            host.log.warning("venue.not_there", error=str(error))
            await asyncio.sleep(RETRY_S)


async def _recovered_desk(host: Host[EngineSettings], instruments: Mapping[str, Instrument]) -> Desk:
    """The desk as it was when we stopped; at the first start, with the capital shared equally."""
    settings = host.settings
    found = load_strategies(settings.strategies_folder)
    strategies = [find_strategy(name, found) for name in settings.strategies]
    all_series = [await _recovered_series(host, each) for each in instruments.values()]
    kept = await host.store.row("select value from facts where name = 'standing'")
    standing = (
        Standing(equity=settings.cash, peak=settings.cash)
        if kept is None
        else msgspec.json.decode(kept[0], type=Standing)
    )
    sleeves = await _recovered_sleeves(host, strategies, all_series)
    return Desk(settings.limits, all_series, sleeves, standing)


async def _recovered_series(host: Host[EngineSettings], instrument: Instrument) -> Series:
    timeframe = host.settings.timeframe
    name = f"{instrument.symbol}.{timeframe}"
    kept, model = await _with_usable_model(host, instrument.symbol, await records.kept_series(host.store, name))
    bars = await records.last_bars(host.store, name, BARS_TO_RESUME)
    read = [(bar.opened_at_ms, bar) for bar, _ in bars]
    reader = RegimeReader.resume(
        timeframe_ms(timeframe), read, model, kept.model_id, records.filter_of(kept), kept.promoted_ms
    )
    series = Series(instrument.symbol, timeframe, instrument, reader, kept)
    for bar, _ in bars[-2:]:
        series.close_before, series.close = series.close, bar.close
    return series


async def _with_usable_model(
    host: Host[EngineSettings], symbol: str, kept: KeptSeries
) -> tuple[KeptSeries, RegimeModel | None]:
    """The model in use, and what was kept; less models that the key of today does not vouch for, or that an older version
    of us kept in a form that is not read any more. Until another one comes, UNKNOWN.
    """
    model = None
    try:
        if kept.model_id:
            await _expect_trust(host, kept.model_id)
            content = await records.artifact(host.store, kept.model_id)
            if content is None:
                raise NeedsOperator(
                    f"{host.store.path} has lost model {kept.model_id[:12]} of {symbol}: restore a copy of it."
                )
            model = load_model(content, kept.model_id)
    except BadMessage as error:
        await host.alert(f"model-refused-{symbol}", "critical", f"{error} {symbol} is read without it.")
        kept = msgspec.structs.replace(kept, model_id="", filter=((), 0.0))
    try:
        if kept.awaited_model:
            await _expect_trust(host, kept.awaited_model)
    except BadMessage as error:
        await host.alert(f"model-refused-{symbol}", "critical", f"{error} It is not waited for.")
        kept = msgspec.structs.replace(kept, awaited_model="")
    return kept, model


async def _expect_trust(host: Host[EngineSettings], model_id: str) -> None:
    """Raises BadMessage where a key is set that does not vouch for this model."""
    if key := host.settings.signing_key:
        trusted_manifest(await host.store.fact(records.manifest_fact(model_id)) or b"", model_id, key)


async def _recovered_sleeves(
    host: Host[EngineSettings], strategies: list[Strategy], all_series: list[Series]
) -> list[Sleeve]:
    settings, kept = host.settings, await records.kept_sleeves(host.store)
    sleeves: list[Sleeve] = []
    shares = iter(equal_shares(settings.cash, len(strategies) * len(all_series)) if not kept else ())
    begun = [keep_fact("cash", str(settings.cash).encode())] if not kept else []
    for strategy in strategies:
        for series in all_series:
            name = f"{strategy.name}.{series.name}"
            born = (next(shares, Decimal(0)), records.KeptSleeve(), b"")  # later ones wait for capital
            cash, words, books = kept.get(name, born)
            trader = Trader(strategy, series.instrument, series.timeframe, cash, settings.costs)
            sleeve = Sleeve(strategy.name, series.symbol, series.timeframe, trader, words)
            bars = await records.last_bars(host.store, series.name, KEPT_BARS) if books else []
            candidates = await records.kept_candidates(host.store, name)
            _begin(sleeve, strategy, books, candidates, bars, is_live=settings.mode == "live")
            if not books:
                begun.append(records.new_sleeve(name, cash, sleeve.trader.books()))
            sleeves.append(sleeve)
    gone = [name for name in kept if name not in {sleeve.name for sleeve in sleeves}]
    if gone:
        raise NeedsOperator(
            f"This data folder trades {', '.join(sorted(gone))} as well, which the settings no longer name. Name the "
            f"strategies and symbols again (flatten them first, if you want to be rid of them), or take another folder."
        )
    await host.store.commit(begun)
    return sleeves


def equal_shares(cash: Decimal, among: int) -> list[Decimal]:
    """The capital in whole cents, to each the same; cents that are left over go to the first."""
    share = (cash / among).quantize(CENT, ROUND_FLOOR)
    left = cash - share * among
    shares = [share] * among
    for at in range(int(left / CENT)):
        shares[at] += CENT
    shares[0] += left % CENT
    return shares


def _begin(
    sleeve: Sleeve,
    strategy: Strategy,
    books: bytes,
    candidates: dict[str, KeptCandidate],
    bars: list[tuple[Bar, Regime]],
    *,
    is_live: bool,
) -> None:
    """Go on where it was. On paper the author's own parameters are admitted from birth, live never.

    A strategy whose new code raises on the bars that it is warmed with stands still; others go on.
    """
    try:
        if books:
            sleeve.resume(books, candidates, bars)
        if not is_live:
            preset = default_preset(strategy, sleeve.symbol, sleeve.timeframe)
            sleeve.admit(preset_id(preset), preset.params)
            if not sleeve.trader.chosen and not sleeve.kept.waiting_preset:
                sleeve.choose(preset_id(preset), "")
    except Exception as error:  # noqa: BLE001  # its own fault; what it holds was read back before
        reason = f"{type(error).__name__} while it was warmed: {error}"
        halted_ms = bars[-1][0].opened_at_ms if bars else -1
        sleeve.kept = msgspec.structs.replace(sleeve.kept, halted=reason, halted_ms=halted_ms)
