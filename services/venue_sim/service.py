"""The simulated venue as a service: settings to a market, a market to a venue, and its doors."""

from __future__ import annotations

from itertools import chain, repeat

from services.venue_sim.conductor import Conductor
from services.venue_sim.exchange import Costs, Exchange
from services.venue_sim.market import STARTS_AT, SimulatedSeries
from services.venue_sim.pace import LockStep
from services.venue_sim.recorded import read_series
from services.venue_sim.requests import Keys
from services.venue_sim.settings import VenueSettings
from services.venue_sim.tape import Tape
from services.venue_sim.venue import TABLES, Venue
from shared.contracts.errors import NeedsOperator
from shared.contracts.subjects import PROGRESS
from shared.contracts.times import parse_time, timeframe_length
from shared.runtime.service import Host, Service


def tape_for(settings: VenueSettings) -> Tape:
    """The market that the settings ask for. Raises NeedsOperator when a file, a symbol or a span is wrong."""
    return _recorded(settings) if settings.market else _simulated(settings)


async def serve(host: Host[VenueSettings]) -> None:
    """Progress in, candles and fills out; orders over HTTP."""
    settings = host.settings
    tape = tape_for(settings)
    costs = Costs(
        maker_fee_bps=settings.maker_fee_bps, taker_fee_bps=settings.taker_fee_bps, slippage_bps=settings.slippage_bps
    )
    quotes = {each.quote: settings.cash for each in tape.instruments}
    venue = Venue(tape, Exchange(tape.instruments, quotes, costs), host.store, host.clock)
    await venue.recover()
    is_fast = settings.speed == "max"
    lockstep = LockStep(settings.lockstep if is_fast else (), goes_on=tape.has_begun)
    conductor = Conductor(
        venue,
        lockstep,
        None if settings.speed == "max" else settings.speed,
        host.clock,
        host.health,
        settings.hang_up_every_bars,
        host.progress.ask,
    )
    if host.web is not None:
        from services.venue_sim.routes import routes  # FastAPI only where it serves

        keys = Keys(settings.api_key, settings.api_secret.get_secret_value())
        host.web.include_router(routes(venue, conductor, keys, host.clock))
    for name in lockstep.speakers:
        await host.bus.hear(f"{PROGRESS.root}.{name}", conductor.on_progress)
    host.spawn(conductor.run(), "market")


SERVICE = Service("venue_sim", VenueSettings, serve, TABLES)


def _simulated(settings: VenueSettings) -> Tape:
    length = timeframe_length(settings.timeframe)
    begins_at = STARTS_AT + settings.history_bars * length
    ends_at = begins_at + settings.bars * length if settings.bars else None
    series = [SimulatedSeries(symbol, settings.seed, settings.timeframe) for symbol in settings.symbols]
    return Tape(series, settings.timeframe, begins_at, ends_at)


def _recorded(settings: VenueSettings) -> Tape:
    if len(settings.market_symbols) > len(settings.market):
        raise NeedsOperator(
            f"market_symbols names {len(settings.market_symbols)} symbols for {len(settings.market)} files."
        )
    symbols_given = chain(settings.market_symbols, repeat(""))
    series = [read_series(path, symbol) for path, symbol in zip(settings.files, symbols_given, strict=False)]
    timeframes = sorted({each.timeframe for each in series})
    symbols = [each.instrument.symbol for each in series]
    if len(timeframes) > 1:
        raise NeedsOperator(f"All --market files must have one timeframe, these have {', '.join(timeframes)}.")
    if len(set(symbols)) < len(symbols):
        raise NeedsOperator(f"Each --market file must be another symbol, these are {', '.join(symbols)}.")
    begins_at = parse_time(settings.begins) if settings.begins else None
    ends_at = parse_time(settings.ends) if settings.ends else None
    return Tape(series, timeframes[0], begins_at, ends_at)
