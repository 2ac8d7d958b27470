"""The verbs of `trimtab backtest`.

Exit codes: 0 done · 1 failed (a strategy raised, every set of a grid failed, a repeated run gave other bits) · 2 wrong
use · 78 a person must act (an unknown strategy, a parameter it does not take, bars that are not there; the text says how).
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from services.backtest_suite import repeating, reports, terminal, walk_reports
from services.backtest_suite.axes import axes_of, params_of
from services.backtest_suite.backends import Backend
from services.backtest_suite.candidates import written
from services.backtest_suite.grids import TIMEOUT_S, GridResult, run_grid
from services.backtest_suite.options import Asked, asks, length
from services.backtest_suite.presets import PresetSearch, Split, find_presets
from services.backtest_suite.results import Result
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.sources import strategy_named
from services.backtest_suite.walk_forward import SETS, WalkForward, walk_forward
from services.backtest_suite.windows import Scheme
from shared.contracts.governance import PresetCandidate
from shared.trading.compiled import Failure

app = typer.Typer(
    name="trimtab backtest",
    help="What a strategy would have earned: one run, a grid of parameter sets, or a walk-forward.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

StrategyName = Annotated[str, typer.Argument(metavar="STRATEGY", help="A name from `trimtab strategies`, or a file.")]


@app.command()
@asks
def run(
    asked: Asked,
    strategy: StrategyName = "",
    params: Annotated[str, typer.Option(help="Such as fast=20,slow=100; the others have their defaults.")] = "",
    from_manifest: Annotated[
        Path | None, typer.Option(help="Repeat the run of a manifest.json, to the same bits.")
    ] = None,
) -> None:
    """One parameter set on bars: a table, and with --output-dir a report, trades, equity and a manifest."""
    with RunStore(asked.data_dir) as store:
        if from_manifest is not None:
            manifest = repeating.read_manifest(from_manifest)
            results = [repeating.repeat(manifest, store)]
        elif not strategy:
            raise typer.BadParameter("Name a STRATEGY, or give --from-manifest.")
        else:
            given = params_of(params)
            experiments = asked.experiments(strategy_named(strategy))
            results = [_done(store.run, experiment, given) for experiment in experiments]
    for result in results:
        if asked.output_dir is not None:
            reports.write_run(result, _folder(asked.output_dir, result, len(results)))
        if not asked.as_json:
            terminal.show_run(result)
    if asked.as_json:
        _say([result.summary() for result in results])


@app.command()
@asks
def grid(
    asked: Asked,
    strategy: StrategyName,
    axes: Annotated[list[str], typer.Option("--grid", help="fast=5:50:5 (the stop included) or fast=5,10,20.")],
    metric: Annotated[str, typer.Option(help="What is best: sharpe, net_return, max_drawdown, ...")] = "sharpe",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads or processes.", show_default="all cores")] = None,
    backend: Annotated[Backend, typer.Option(help="threads; processes survive crashes; dask and ray are clusters.")] = (
        "threads"
    ),
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one set, with processes.")] = TIMEOUT_S,
    cache: Annotated[bool, typer.Option(help="Take what was computed before from the runs database.")] = True,
    best: Annotated[int, typer.Option(min=1, help="How many are told.")] = 10,
) -> None:
    """Every combination of parameter values: the best, a map, and whether the best stands on a plateau."""
    values = axes_of(axes)
    found: list[GridResult] = []
    with RunStore(asked.data_dir) as store:
        for experiment in asked.experiments(strategy_named(strategy)):
            with terminal.progress_of(experiment) as on_progress:
                found.append(
                    run_grid(
                        experiment,
                        values,
                        store,
                        metric=metric,
                        backend=backend,
                        workers=workers,
                        timeout_s=timeout,
                        use_cache=cache,
                        on_progress=on_progress,
                    )
                )
    for one in found:
        if asked.output_dir is not None:
            reports.write_grid(one, _folder(asked.output_dir, one, len(found)))
        if not asked.as_json:
            terminal.show_grid(one, best)
    if asked.as_json:
        _say([one.summary(best) for one in found])
    if all(len(one.failures) == len(one.outcomes) for one in found):
        raise typer.Exit(1)


@app.command("walk-forward")
@asks
def walk(
    asked: Asked,
    strategy: StrategyName,
    train: Annotated[timedelta, typer.Option(parser=length, help="To tune on, such as 365d.")],
    test: Annotated[timedelta, typer.Option(parser=length, help="To trade after it, such as 90d.")],
    anchored: Annotated[bool, typer.Option("--anchored", help="Every training span begins at the first bar.")] = False,
    embargo: Annotated[int, typer.Option(min=0, help="Bars between training and test that nobody looks at.")] = 0,
    axes: Annotated[
        list[str] | None, typer.Option("--grid", help="fast=5:50:5; without it sets are drawn from the schema.")
    ] = None,
    sets: Annotated[int, typer.Option(min=1, max=100_000, help="How many are drawn.")] = SETS,
    metric: Annotated[str, typer.Option(help="What is best: sharpe, net_return, max_drawdown, ...")] = "sharpe",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads.", show_default="all cores")] = None,
    cache: Annotated[bool, typer.Option(help="Take what was computed before from the runs database.")] = True,
) -> None:
    """Tune on a span, trade the one after it, go on: what is told was never tuned on."""
    scheme, values = Scheme(train, test, anchored, embargo), axes_of(axes or ())
    found: list[WalkForward] = []
    with RunStore(asked.data_dir) as store:
        for experiment in asked.experiments(strategy_named(strategy)):
            with terminal.progress_of(experiment) as on_progress:
                one = _done(
                    partial(walk_forward, sets=sets, metric=metric, workers=workers, use_cache=cache),
                    experiment,
                    scheme,
                    values,
                    store,
                    on_progress=on_progress,
                )
                found.append(one)
    for one in found:
        if asked.output_dir is not None:
            walk_reports.write_walk(one, _folder(asked.output_dir, one, len(found)))
        if not asked.as_json:
            terminal.show_walk(one)
    if asked.as_json:
        _say([one.summary() for one in found])


@app.command()
@asks
def presets(
    asked: Asked,
    strategy: StrategyName,
    timeframes: Annotated[str, typer.Option(help="Such as 1h,4h: horizons that compete; bars are put together.")] = "",
    axes: Annotated[
        list[str] | None, typer.Option("--grid", help="fast=5:50:5; without it sets are drawn from the schema.")
    ] = None,
    sets: Annotated[int, typer.Option(min=1, max=100_000, help="How many are drawn, for each horizon.")] = SETS,
    metric: Annotated[str, typer.Option(help="What is best in training.")] = "sharpe",
    train_share: Annotated[float, typer.Option(help="The oldest part of the bars: every set is run on it.")] = 0.5,
    test_share: Annotated[float, typer.Option(help="The part after it; the rest is the governor's.")] = 0.25,
    best: Annotated[int, typer.Option(min=1, help="How many are proposed at most.")] = 3,
    least_trades: Annotated[int, typer.Option(min=1, help="In training and in the test, to pass.")] = 5,
    venue: Annotated[str, typer.Option(help="Where they would trade.")] = "sim",
    file: Annotated[Path | None, typer.Option("--write", help="Write the candidates into this file.")] = None,
    send: Annotated[bool, typer.Option("--send", help="Propose them to the governor of the stack on --stack.")] = False,
) -> None:
    """Candidates from backtests: what passed on bars that it was not tuned on, for the governor to judge."""
    split = Split(train=train_share, test=test_share, best=best, least_trades=least_trades)
    found: list[PresetSearch] = []
    with RunStore(asked.data_dir) as store:
        for experiment in asked.experiments(strategy_named(strategy)):
            with terminal.progress_of(experiment) as on_progress:
                act = partial(
                    find_presets,
                    timeframes=[word.strip() for word in timeframes.split(",") if word.strip()],
                    sets=sets,
                    metric=metric,
                    on_progress=on_progress,
                )
                found.append(_done(act, experiment, split, axes_of(axes or ()), store))
    candidates = [candidate for one in found for candidate in one.candidates(venue)]
    if file is not None:
        reports.publish(file.parent, {file.name: written(candidates)})
    if send and candidates:
        _send(asked.stack, candidates)
    if asked.as_json:
        _say([{**one.summary(), "sent": send and bool(one.passed)} for one in found])
    else:
        for one in found:
            terminal.show_presets(one)


def _send(folder: Path, candidates: list[PresetCandidate]) -> None:
    from shared.runtime.running import Stack  # brings an HTTP client, which a file does not need

    Stack.of(folder).post("backtest_suite", "/candidates", msgspec.json.decode(written(candidates)))


def _done(act: Any, *given: Any, **named: Any) -> Any:
    """What the strategy raises is one clear line."""
    try:
        return act(*given, **named)
    except Failure as failure:
        typer.echo(f"trimtab: {failure}", err=True)
        raise typer.Exit(1) from None


def _folder(folder: Path, of: Result | GridResult | WalkForward, of_how_many: int) -> Path:
    """The folder itself, or one below it for each instrument when there are several."""
    bars = of.experiment.bars
    return folder if of_how_many == 1 else folder / f"{bars.symbol}-{bars.timeframe}"


def _say(summaries: list[dict[str, Any]]) -> None:
    """One JSON object on the last line. NaN is null: it is no JSON."""
    said = summaries[0] if len(summaries) == 1 else {"runs": summaries}
    typer.echo(msgspec.json.encode(said))
