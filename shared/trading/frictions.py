"""Costs that depend on something: what was traded before, who rested, how the market moves, how much its bar holds.

`Rules` is what the engine knows as well; `Frictions` is what only a backtest plays (`matching`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs, SlippageModel
from shared.contracts.instruments import Instrument
from shared.trading.indicators import Atr, Sma, atr, atr_step, sma, sma_step
from shared.trading.kernel import kernel, ring
from shared.trading.scales import Rules, Scale, ppm
from shared.trading.values import Bar

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS  # borrowing is counted by the day: actual/365
FILLS = ("next_open", "same_close", "next_close")
NEXT_OPEN, SAME_CLOSE, NEXT_CLOSE = 0, 1, 2
ATR_BARS, CALM_BARS, TURNOVER_DAYS, WEEK_DAYS = 14, 60, 20, 7  # of the slippage model, see `SlippageModel`
LOW_32 = 0xFFFFFFFF


class Slippage(NamedTuple):
    """`SlippageModel` as numbers. When it is off slippage is the rules' own."""

    is_on: bool
    base: float  # fraction of the price
    half_spread: float  # the same
    volatility: bool
    size: bool
    weekend: float
    stress: float
    stress_fall: float
    noise: float
    seed: int
    day_bars: int
    quote: float  # ledger units in 1.0 of quote currency


class Frictions(NamedTuple):
    """What execution must know to play a venue in detail, as numbers that compile. Made by `frictions`."""

    rules: Rules
    fill: int  # where market orders are filled: a number of `FILLS`
    exits_rest: bool  # stop, take-profit and trail wait at the venue
    maker_ppm: int  # -1: as who takes
    tier_from: list[float]  # ledger units traded so far, rising
    tier_ppm: list[float]
    volume_lots: float  # lots that orders may take of each unit of volume; 0: all they want
    borrow_ms: float  # fraction of what is owed, each millisecond
    funding_at: list[float]  # ms, rising
    funding_rate: list[float]  # of the position's worth, paid by a long
    bar_ms: int
    slippage: Slippage


class Weather(NamedTuple):
    """What slippage follows, as of the last closed bar."""

    range: Atr
    calm: Sma  # of the range
    turnover: Sma  # volume x close, of a bar
    week: list[float]  # closes of the last 7 days
    at: int  # where the oldest stands
    seen: int
    volatility: float  # factor, 1.0 until it is known
    is_stressed: bool


def frictions(
    instrument: Instrument,
    costs: Costs,
    rules: Rules,
    *,
    fill: str,
    exits: str,
    funding: tuple[Sequence[float], Sequence[float]] | None,
    bar_ms: int,
) -> Frictions:
    """The numbers of these terms. Raises NeedsOperator when funding is not what it should be."""
    if fill not in FILLS or exits not in ("on_close", "at_venue"):
        raise NeedsOperator(
            f"Fills are {', '.join(FILLS)} and exits on_close or at_venue, were {fill!r} and {exits!r}."
        )
    scale = Scale.of(instrument)
    times, rates = funding_of(instrument, funding)
    model = costs.slippage_model or SlippageModel(volatility=False, size=False)
    return Frictions(
        rules=rules,
        fill=FILLS.index(fill),
        exits_rest=exits == "at_venue",
        maker_ppm=-1 if costs.maker_bps is None else ppm(costs.maker_bps),
        tier_from=[float(scale.units(notional)) for notional, _ in costs.tiers],
        tier_ppm=[float(ppm(bps)) for _, bps in costs.tiers],
        volume_lots=float(Decimal(costs.max_volume_share) / instrument.lot),
        borrow_ms=borrow_rate_ms(instrument, costs),
        funding_at=times,
        funding_rate=rates,
        bar_ms=bar_ms,
        slippage=Slippage(
            is_on=costs.slippage_model is not None,
            base=costs.slippage_bps / 10_000,
            half_spread=costs.spread_bps / 20_000,
            volatility=model.volatility,
            size=model.size,
            weekend=model.weekend,
            stress=model.stress,
            stress_fall=model.stress_fall,
            noise=model.noise,
            seed=model.seed,
            day_bars=max(1, DAY_MS // bar_ms),
            quote=float(scale.units(Decimal(1))),
        ),
    )


def funding_of(
    instrument: Instrument, funding: tuple[Sequence[float], Sequence[float]] | None
) -> tuple[list[float], list[float]]:
    """Times (ms) and rates of an instrument. Raises NeedsOperator when they are not what they should be."""
    times, rates = ([], []) if funding is None else (list(map(float, column)) for column in funding)
    if len(times) != len(rates) or any(b <= a for a, b in itertools.pairwise(times)):
        raise NeedsOperator("Funding must have rising times and as many rates.")
    if any(not abs(rate) < 1 for rate in rates):
        raise NeedsOperator(f"A funding rate must be a fraction within -1..1, was {max(rates, key=abs)}.")
    if times and instrument.kind != "perpetual":
        raise NeedsOperator(f"Only perpetuals have funding: {instrument.symbol} is {instrument.kind}.")
    return times, rates


def borrow_rate_ms(instrument: Instrument, costs: Costs) -> float:
    """What borrowing costs each millisecond, as a fraction of what is owed; 0.0 where nothing is borrowed to be short."""
    return (costs.borrow_bps_year or 0.0) / 10_000 / YEAR_MS if instrument.kind == "share" else 0.0


@kernel
def borrowing_cost(lots: int, price: float, rate_ms: float, since_ms: int, rules: Rules) -> float:
    """Ledger units for owing `lots` (negative) for so long, at this price."""
    owed = float(-lots) * price * rules.ticks * float(rules.unit)
    return owed * rate_ms * float(since_ms)


@kernel
def funding_cost(lots: int, price: float, rate: float, rules: Rules) -> float:
    """Ledger units for holding `lots` (signed) at a funding time, at this price; negative: received."""
    worth = float(lots) * price * rules.ticks * float(rules.unit)
    return worth * rate


@kernel
def whole_units(cost: float) -> int:
    """A charge as the ledger books it: rounded half up."""
    return math.floor(cost + 0.5)


@kernel
def fee_rate(traded: float, is_maker: bool, f: Frictions) -> int:
    """The fee, in millionths of the notional, after `traded` ledger units in this run."""
    if is_maker and f.maker_ppm >= 0:
        return f.maker_ppm
    rate = f.rules.fee_ppm
    for k in range(len(f.tier_from)):
        if traded >= f.tier_from[k]:
            rate = int(f.tier_ppm[k])
    return rate


@kernel
def room(wanted: int, taken: int, volume: float, f: Frictions) -> int:
    """How many of the wanted lots (signed) this bar's volume still has room for, when others were `taken` of it."""
    if f.volume_lots == 0.0:
        return wanted
    most = volume * f.volume_lots - float(taken)
    if float(abs(wanted)) <= most:
        return wanted
    return 0 if most < 1.0 else int(most) if wanted > 0 else -int(most)


@kernel
def slippage_of(notional: float, bar: Bar, fills: int, weather: Weather, f: Frictions) -> float:
    """What a market order of `notional` (ledger units) pays, as a fraction of the price: half the spread is in it.

    `fills` counts those of this bar, so that each draws its own noise. See `SlippageModel` for the formula.
    """
    s = f.slippage
    if not s.is_on:
        return f.rules.slippage
    mean = s.base * weather.volatility
    turnover = weather.turnover.value * float(s.day_bars) * s.quote
    if s.size and turnover > 0.0:
        mean *= clipped(notional / (0.01 * turnover), 0.5, 2.0)
    if (bar.opened_at_ms // DAY_MS + 3) % 7 >= 5:  # 1970 began on a Thursday
        mean *= s.weekend
    if weather.is_stressed:
        mean *= s.stress
    if s.noise > 0.0:
        wild = 1.5 if weather.is_stressed else 1.0
        mean += mean * s.noise * wild * normal(s.seed, bar.opened_at_ms // 1000, fills)
    return clipped(mean + s.half_spread, s.half_spread, 1.0)


@kernel
def clipped(x: float, least: float, most: float) -> float:
    """The number itself, or the bound that it passed."""
    return least if x < least else min(x, most)


@kernel
def weather(f: Frictions) -> Weather:
    """Before the first bar. Without a model the rings hold one number each."""
    s = f.slippage
    days = s.day_bars if s.is_on else 0
    return Weather(
        atr(ATR_BARS),
        sma(CALM_BARS),
        sma(max(1, TURNOVER_DAYS * days)),
        ring(max(1, WEEK_DAYS * days)),
        0,
        0,
        1.0,
        False,
    )


@kernel
def weather_step(w: Weather, bar: Bar, f: Frictions) -> Weather:
    """After a closed bar."""
    s = f.slippage
    reach = atr_step(w.range, bar)
    calm = w.calm if reach.value != reach.value else sma_step(w.calm, reach.value)
    factor = 1.0
    if s.volatility and calm.value > 0.0:
        factor = clipped(reach.value / calm.value, 0.5, 3.0)
    before = w.week[w.at]
    w.week[w.at] = bar.close
    at = w.at + 1
    if at == len(w.week):
        at = 0
    seen = w.seen + 1
    is_stressed = seen > len(w.week) and bar.close < before * (1.0 - s.stress_fall)
    turnover = sma_step(w.turnover, bar.volume * bar.close)
    return Weather(reach, calm, turnover, w.week, at, seen, factor, is_stressed)


@kernel
def normal(seed: int, time: int, count: int) -> float:
    """A draw from the standard normal distribution that depends on nothing but these three numbers.

    Source: G. E. P. Box and M. E. Muller, Annals of Mathematical Statistics 29(2), 1958.
    """
    one = mixed(seed + mixed(time + mixed(2 * count + 1)))
    two = mixed(seed + mixed(time + mixed(2 * count + 2)))
    radius = math.sqrt(-2.0 * math.log((float(one) + 0.5) / 4294967296.0))
    return radius * math.cos(2.0 * math.pi * ((float(two) + 0.5) / 4294967296.0))


@kernel
def mixed(x: int) -> int:
    """A number in 0..2^32-1 whose bits look like chance.

    No product passes 2^63, where Python's integers grow and compiled ones wrap. Source of the constant: T. Mueller's
    32-bit integer hash.
    """
    x = x & LOW_32
    x = (((x >> 16) ^ x) * 0x45D9F3B) & LOW_32
    x = (((x >> 16) ^ x) * 0x45D9F3B) & LOW_32
    return (x >> 16) ^ x
