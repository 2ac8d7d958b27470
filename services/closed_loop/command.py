"""`trimtab backtest loop`: the whole closed loop over history."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from services.backtest_suite.options import amount, moment
from shared.contracts.errors import NeedsOperator

if TYPE_CHECKING:
    from services.backtest_suite.data import Bars
    from services.closed_loop.house import Plan
    from services.closed_loop.replay import Market
    from services.closed_loop.report import Outcome

LEAST_HISTORY = 0.25  # of the bars, where no --from is given: warm-up, first training, first searches


def loop(
    data: Annotated[list[Path], typer.Option("--data", help="Bars, a file an instrument (may be repeated).")],
    first: Annotated[
        datetime | None,
        typer.Option(
            "--from", parser=moment, help="Trade from here; bars before it are history.", show_default="a quarter in"
        ),
    ] = None,
    last: Annotated[datetime | None, typer.Option("--to", parser=moment, help="Last bar.")] = None,
    history_bars: Annotated[int, typer.Option(min=0, help="The newest bars before --from that are told.")] = 5000,
    timeframe: Annotated[str, typer.Option(help="Longer than the file's: bars are put together.")] = "",
    strategies: Annotated[str, typer.Option(help="Names from `trimtab strategies`, with commas.")] = (
        "momentum,trend_follow"
    ),
    cash: Annotated[Decimal, typer.Option(parser=amount, help="Shared equally among the sleeves.")] = Decimal(10_000),
    fee_bps: Annotated[float, typer.Option(help="Of each fill's notional.")] = 10.0,
    slippage_bps: Annotated[float, typer.Option(help="Against you, on each order.")] = 5.0,
    profile: Annotated[Literal["demo", "paper", "live"], typer.Option(help="The governor's gate.")] = "paper",
    seed: Annotated[int, typer.Option(help="Of every choice, fit and search.")] = 7,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Keep each service's database and outcome.json here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the last line, for programs.")] = False,
) -> None:
    """The whole closed loop over history: regimes retrained, presets searched, judged and chosen, trades, lessons.

    Prequential: each bar is decided on by what was known before it, then learned from. The services are those that
    trade, on a memory bus and a replay clock; the same data and seed give the same outcome.
    """
    from shared.runtime.logs import set_up_logs
    from shared.trading.strategies import all_strategies, find_strategy

    set_up_logs("loop", "console", "error")
    known = all_strategies()
    names = tuple(dict.fromkeys(name.strip() for name in strategies.split(",") if name.strip()))
    for name in names:
        find_strategy(name, known)
    if output_dir is not None and output_dir.is_dir() and any(output_dir.iterdir()):
        raise NeedsOperator(f"A loop begins with nothing kept: take an empty folder, {output_dir} is not.")
    from services.closed_loop.house import VENUE, Plan
    from services.closed_loop.replay import Market

    market = Market.of(VENUE, _bars(data, timeframe, last))
    live_from = first or _a_quarter_in(market)
    market = market.since(live_from, history_bars)
    plan = Plan(names, cash, fee_bps, slippage_bps, profile, seed)
    with TemporaryDirectory(prefix="trimtab-loop-") as passing:
        folder = output_dir or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        told = asyncio.run(_played(market, plan, live_from, folder))
        body = msgspec.json.format(msgspec.json.encode(told), indent=2)
        if output_dir is not None:
            (folder / "outcome.json").write_bytes(body)
    if as_json:
        typer.echo(msgspec.json.encode(told))
    else:
        from rich.console import Console

        from services.closed_loop.report import show

        show(told, Console(highlight=False, soft_wrap=True))


def _bars(paths: list[Path], timeframe: str, last: datetime | None) -> list[Bars]:
    from services.backtest_suite.data import read_bars

    return [bars for path in paths for bars in read_bars(path, timeframe=timeframe, last=last)]


def _a_quarter_in(market: Market) -> datetime:
    from shared.contracts.times import from_ms

    times = max((bars.columns.opened_at_ms for bars in market.bars.values()), key=len)
    return from_ms(int(times[int(len(times) * LEAST_HISTORY)]))


async def _played(market: Market, plan: Plan, live_from: datetime, folder: Path) -> Outcome:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from services.closed_loop.house import open_house
    from services.closed_loop.report import outcome
    from shared.trading.strategies import all_strategies

    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        total = sum(len(bars) for bars in market.bars.values())
        task = shown.add_task("bars", total=total)
        async with open_house(market, plan, folder) as house:
            house.replay.on_told = lambda bars: shown.advance(task, bars)
            await house.play(house.replay.run(live_from))
            return outcome(house, plan, all_strategies(), time.monotonic() - began)
