"""The options that every verb of `trimtab backtest` has: which bars, on what terms, where results go. Written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from services.backtest_suite.charges import costs_of
from services.backtest_suite.data import Universe
from services.backtest_suite.driver import Experiment, Given
from services.backtest_suite.listing import Kind
from services.backtest_suite.manifests import EXITS, FILLS
from services.backtest_suite.panels import Panel
from services.backtest_suite.run_store import DEFAULT_FOLDER
from services.backtest_suite.sources import Found, bars_found, readings
from services.backtest_suite.windows import length_of
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Costs
from shared.contracts.times import parse_time
from shared.trading.strategy import PortfolioStrategy, Strategy


def moment(text: str) -> datetime:
    """A date or time of the command line."""
    try:
        return parse_time(text)
    except BadMessage as error:
        raise typer.BadParameter(str(error)) from None


def amount(text: str) -> Decimal:
    """An exact number of the command line."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"Expected a number such as 10000 or 0.5, was {text!r}.") from None


def length(text: str) -> timedelta:
    """A length of time of the command line."""
    try:
        return length_of(text)
    except BadMessage as error:
        raise typer.BadParameter(str(error)) from None


@dataclass(frozen=True)
class Asked:
    """What was asked for, whatever the verb."""

    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", help="Bars: Parquet, feather, CSV, an exchange's zips, or a folder of them (may be repeated)."
        ),
    ] = None
    symbol: Annotated[
        str, typer.Option(help="Such as BTC-USDT; else the file's name tells it. From a stack also BTC-USDT+ETH-USDT.")
    ] = ""
    timeframe: Annotated[str, typer.Option(help="Such as 1h; longer than the file's: bars are put together.")] = ""
    first: Annotated[datetime | None, typer.Option("--from", parser=moment, help="First bar, such as 2022-01-31.")] = (
        None
    )
    last: Annotated[datetime | None, typer.Option("--to", parser=moment, help="Last bar.")] = None
    kind: Annotated[
        Kind | None, typer.Option(help="What was traded in the files.", show_default="by their names and content")
    ] = None
    universe: Annotated[
        Universe | None, typer.Option(help="Who was allowed into the data set; printed beside every headline.")
    ] = None
    adjusted: Annotated[bool, typer.Option("--adjusted", help="Shares: take prices through splits and dividends.")] = (
        False
    )
    cash: Annotated[Decimal, typer.Option(parser=amount, help="To begin with, in quote currency.")] = Decimal(10_000)
    fee_bps: Annotated[float, typer.Option(help="Of each fill's notional.")] = 10.0
    maker_bps: Annotated[
        float | None, typer.Option(help="Of what rested at the venue.", show_default="as --fee-bps")
    ] = None
    min_fee: Annotated[Decimal, typer.Option(parser=amount, help="Of each fill, in quote currency.")] = Decimal(0)
    slippage_bps: Annotated[float, typer.Option(help="Against you, on each market order.")] = 5.0
    spread_bps: Annotated[float, typer.Option(help="Between bid and ask; half of it is paid.")] = 0.0
    fee_tiers: Annotated[
        str, typer.Option(help="Such as 100000=8,1000000=6: the fee in bps, from so much traded in the run on.")
    ] = ""
    slippage_model: Annotated[
        str,
        typer.Option(help="crypto, shares, or such as volatility,size,weekend=1.5,noise=0.75: --slippage-bps moves."),
    ] = ""
    borrow_bps: Annotated[
        float | None, typer.Option(help="A year, of shares that are owed.", show_default="no shorts")
    ] = None
    volume_share: Annotated[float, typer.Option(help="Of a bar's volume that orders may take; 0: all they want.")] = 0.0
    funding: Annotated[
        list[Path] | None,
        typer.Option(help="Of a perpetual: a file of times and rates (8 hours, mostly); one for each --data."),
    ] = None
    size: Annotated[
        Decimal | None, typer.Option(parser=amount, help="Units of every position.", show_default="by --exposure")
    ] = None
    exposure: Annotated[float, typer.Option(help="0..1, times the strategy's own share of the equity.")] = 1.0
    lot: Annotated[Decimal | None, typer.Option(parser=amount, help="Smallest step of a quantity; 1: whole units.")] = (
        None
    )
    fill: Annotated[
        Literal["next-open", "same-close", "next-close"], typer.Option(help="Where market orders are filled.")
    ] = "next-open"
    exits: Annotated[
        Literal["on-close", "at-venue"], typer.Option(help="Stops are judged on closed bars, or rest at the venue.")
    ] = "on-close"
    shorts: Annotated[bool, typer.Option(help="Where the instrument allows them.")] = True
    rebalance_band: Annotated[
        float, typer.Option(help="Of a portfolio's equity: a leg that is off by less is left alone.")
    ] = 0.0
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0
    stack: Annotated[Path, typer.Option(help="Data folder of a running stack, for bars without --data.")] = Path("var")
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Where runs and trials are counted.")] = DEFAULT_FOLDER
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Write report and files into this folder.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the last line, for programs.")] = False

    @property
    def costs(self) -> Costs:
        try:
            return costs_of(
                fee_tiers=self.fee_tiers,
                slippage_model=self.slippage_model,
                seed=self.seed,
                fee_bps=self.fee_bps,
                slippage_bps=self.slippage_bps,
                maker_bps=self.maker_bps,
                min_fee=self.min_fee,
                spread_bps=self.spread_bps,
                borrow_bps_year=self.borrow_bps,
                max_volume_share=self.volume_share,
            )
        except BadMessage as error:
            raise typer.BadParameter(str(error)) from None

    @property
    def given(self) -> Given:
        """The terms, as an experiment takes them."""
        return Given(
            cash=self.cash,
            costs=self.costs,
            fill=FILLS[self.fill],
            exits=EXITS[self.exits],
            size=self.size,
            exposure=self.exposure,
            shorts=self.shorts,
            rebalance_band=self.rebalance_band,
            seed=self.seed,
        )

    def experiments(self, strategy: Strategy | PortfolioStrategy) -> list[Experiment]:
        """One for each instrument of the data; a portfolio is one experiment on all of them, in the order of --data."""
        found = self.found()
        if isinstance(strategy, PortfolioStrategy):
            panel, readings = Panel(tuple(each.bars for each in found)), tuple(each.reading for each in found)
            return [Experiment.of(strategy, panel, readings=readings, **self.given)]
        return [Experiment.of(strategy, each.bars, readings=(each.reading,), **self.given) for each in found]

    def found(self) -> list[Found]:
        """The bars that were named."""
        asked = readings(
            self.data or (), self.symbol, self.timeframe, self.adjusted, self.stack, self.funding or (), self.kind
        )
        return [
            found
            for reading in asked
            for found in bars_found(reading, first=self.first, last=self.last, lot=self.lot, universe=self.universe)
        ]


def asks(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb whose parameter `asked` stands for all options of `Asked`, beside its own."""
    own = [each for each in inspect.signature(verb, eval_str=True).parameters.values() if each.name != "asked"]
    kinds = get_type_hints(Asked, include_extras=True)
    common = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kinds[field.name]
        )
        for field in fields(Asked)
    ]

    @functools.wraps(verb)
    def called(**given: Any) -> None:
        verb(asked=Asked(**{field.name: given.pop(field.name) for field in fields(Asked)}), **given)

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + common
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # it is what typer reads
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called
