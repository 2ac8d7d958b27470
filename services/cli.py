"""The command `trimtab`. What it needs is imported by the verb that needs it, so that `--help` is quick.

Exit codes: 0 done · 1 failed · 2 wrong use · 78 a person must act (the text says how).
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from services.options import DEFAULT_DATA, DataDir, Json, Reason
from shared.contracts.errors import BadMessage, NeedsOperator, TryAgain

app = typer.Typer(
    name="trimtab",
    help="Senses the market's regime, chooses among proven parameter sets, trades them, and tells why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # its boxes take longer to import than all the rest of `--help`
    context_settings={"max_content_width": 120},
)
gov = typer.Typer(help="What was admitted, what was refused, and the record of both.", no_args_is_help=True)
config = typer.Typer(help="Settings: what they are, and whether yours are right.", no_args_is_help=True)
new = typer.Typer(help="Begin something of your own.", no_args_is_help=True)
app.add_typer(gov, name="gov")
app.add_typer(config, name="config")
app.add_typer(new, name="new")


@app.command()
def up(
    market: Annotated[
        list[Path] | None, typer.Option("--market", help="Recorded bars to play (may be repeated).")
    ] = None,
    start: Annotated[str, typer.Option("--from", help="Trade from here; bars before it are history.")] = "",
    end: Annotated[str, typer.Option("--to", help="Play up to here.")] = "",
    speed: Annotated[str, typer.Option(help="Bars a second, or max.")] = "1",
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when the market has been played.")] = False,
    bars: Annotated[int, typer.Option(help="Of the simulated market, an instrument; with --until-end 10,000.")] = 0,
    venue: Annotated[str, typer.Option(help="sim, or a real exchange's public data with paper fills.")] = "sim",
    venue_url: Annotated[str, typer.Option(help="A local server with that exchange's dialect.")] = "",
    symbols: Annotated[str, typer.Option(help="Such as BTC-USDT,ETH-USDT.")] = "",
    timeframe: Annotated[str, typer.Option(help="Length of a bar: 1m, 5m, 1h, 1d, ...")] = "",
    strategies: Annotated[str, typer.Option(help="Names from `trimtab strategies`, with commas.")] = "",
    seed: Annotated[int, typer.Option(help="Of the simulated market and of every choice.")] = 7,
    port_base: Annotated[int, typer.Option(help="Each service listens on this plus its own number.")] = 8000,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where to keep everything.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every service's log on the terminal.")] = False,
    as_json: Json = False,
) -> None:
    """The whole stack on this machine: a real NATS, a process for each service, and a page to look at."""
    from services.stack import Plan, bring_up

    plan = Plan(
        market=tuple(market or ()),
        start=start,
        end=end,
        speed=speed,
        bars=bars,
        until_end=until_end,
        venue=venue,
        venue_url=venue_url,
        symbols=symbols,
        timeframe=timeframe,
        strategies=strategies,
        seed=seed,
        port_base=port_base,
        data_dir=data_dir,
        verbose=verbose,
        as_json=as_json,
    )
    raise typer.Exit(bring_up(plan))


@app.command()
def run(service: Annotated[str, typer.Argument(help="ingester, engine, ...")]) -> None:
    """One service, as compose starts it. Its settings come from trimtab.toml and TRIMTAB_* variables."""
    from shared.runtime.process import EXIT_NEEDS_OPERATOR
    from shared.runtime.process import run as run_service

    known = _service(service)
    try:
        settings = known.settings.load()
    except NeedsOperator as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_NEEDS_OPERATOR) from None
    run_service(known, settings)


def _service(name: str) -> Any:
    from shared.runtime.settings import PORTS

    if name not in PORTS:
        raise NeedsOperator(f"A service is one of {', '.join(sorted(PORTS))}, was {name!r}.")
    return importlib.import_module(f"services.{name}.service").SERVICE


@app.command()
def status(data_dir: DataDir = DEFAULT_DATA, as_json: Json = False) -> None:
    """What it is doing: services, bars, regimes, presets, orders, trades."""
    from services import answers

    answers.show_status(_stack(data_dir), as_json)


@app.command()
def stats(data_dir: DataDir = DEFAULT_DATA, as_json: Json = False) -> None:
    """What it earned, net of costs."""
    from services import answers

    answers.show_stats(_stack(data_dir), as_json)


@app.command()
def trades(
    data_dir: DataDir = DEFAULT_DATA, limit: Annotated[int, typer.Option(min=1, max=1000)] = 20, as_json: Json = False
) -> None:
    """The trades that were closed, newest first."""
    from services import answers

    answers.show_trades(_stack(data_dir), limit, as_json)


@app.command()
def positions(data_dir: DataDir = DEFAULT_DATA, as_json: Json = False) -> None:
    """What is held now."""
    from services import answers

    answers.show_positions(_stack(data_dir), as_json)


@app.command()
def explain(
    id: Annotated[str, typer.Argument(help="Of a trade, an order or a decision.")],
    data_dir: DataDir = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Why it was done."""
    from services import answers

    answers.show_explanation(_stack(data_dir), id, as_json)


def _command(name: str, data_dir: Path, reason: str, as_json: bool) -> None:
    from services import answers

    answers.command(_stack(data_dir), name, reason, as_json)


@app.command()
def pause(data_dir: DataDir = DEFAULT_DATA, reason: Reason = "by hand", as_json: Json = False) -> None:
    """No new positions; open ones are managed to their end."""
    _command("pause", data_dir, reason, as_json)


@app.command()
def resume(data_dir: DataDir = DEFAULT_DATA, reason: Reason = "by hand", as_json: Json = False) -> None:
    """Trade again, also after a halt."""
    _command("resume", data_dir, reason, as_json)


@app.command()
def flatten(data_dir: DataDir = DEFAULT_DATA, reason: Reason = "by hand", as_json: Json = False) -> None:
    """Close what is open at the next open, and pause."""
    _command("flatten", data_dir, reason, as_json)


@app.command()
def halt(data_dir: DataDir = DEFAULT_DATA, reason: Reason = "by hand", as_json: Json = False) -> None:
    """Order nothing any more, until a person resumes."""
    _command("halt", data_dir, reason, as_json)


@gov.command("log")
def gov_log(
    data_dir: DataDir = DEFAULT_DATA,
    after: Annotated[int, typer.Option(help="Sequence number.")] = 0,
    as_json: Json = False,
) -> None:
    """The hash-chained record of every admission and refusal, with reasons."""
    from services import answers

    answers.show_record(_stack(data_dir), after, as_json)


@gov.command("verify")
def gov_verify(data_dir: DataDir = DEFAULT_DATA, as_json: Json = False) -> None:
    """Check the record's chain of hashes; exit code 1 when it was tampered with."""
    from services import answers

    raise typer.Exit(answers.verify_record(_stack(data_dir), as_json))


@app.command()
def strategies(as_json: Json = False) -> None:
    """The strategies that can be traded, with their parameters."""
    from services import answers

    answers.show_strategies(as_json)


@app.command()
def leakcheck(
    subject: Annotated[str, typer.Argument(help="A strategy, its file, file.py:function, or `regimes`.")],
    data: Annotated[
        list[Path] | None, typer.Option(help="Bars (of a portfolio: repeated); without them the simulated market.")
    ] = None,
    symbol: Annotated[str, typer.Option(help="Such as BTC-USDT, where the data holds several.")] = "",
    timeframe: Annotated[str, typer.Option(help="Such as 1h, where the data does not say it.")] = "",
    bars: Annotated[int, typer.Option(min=2, help="How many of the last bars.")] = 2_000,
    as_json: Json = False,
) -> None:
    """Whether anything sees the future: other futures must change no past value. Exit code 1 names what does."""
    from services.leakcheck import check

    raise typer.Exit(check(subject, data or (), symbol, timeframe, bars, as_json))


@new.command("strategy")
def new_strategy(
    name: Annotated[str, typer.Argument(help="Such as my_breakout.")],
    folder: Annotated[Path, typer.Option(help="Where strategies of your own live.")] = Path("strategies"),
) -> None:
    """A strategy file of your own, ready to change."""
    from services import answers

    answers.begin_strategy(name, folder)


@config.command("show")
def config_show(service: Annotated[str, typer.Argument()], as_json: Json = False) -> None:
    """A service's settings as they would be used; secrets hidden."""
    settings = _service(service).settings.load()
    values = json.loads(settings.model_dump_json())
    typer.echo(json.dumps(values) if as_json else "\n".join(f"{key} = {value!r}" for key, value in values.items()))


@config.command("check")
def config_check() -> None:
    """Whether every service could start with the settings that are there."""
    from shared.runtime.settings import PORTS

    for name in PORTS:
        _service(name).settings.load()
    typer.echo("All settings are right.")


@config.command("schema")
def config_schema(service: Annotated[str, typer.Argument()]) -> None:
    """The JSON schema of a service's settings, for editors."""
    typer.echo(json.dumps(_service(service).settings.model_json_schema()))


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def backtest(context: typer.Context) -> None:
    """What a strategy, or the whole loop, would have earned: runs, grids, the loop. See `trimtab backtest --help`."""
    from services.backtest_suite.commands import app as verbs
    from services.closed_loop.command import loop

    verbs.command()(loop)  # it hosts every service, so it stands under the roof and not in one of them
    verbs(context.args, prog_name="trimtab backtest")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def models(context: typer.Context) -> None:
    """The versions of the regime model: what they are, how two differ, which one reads. See `trimtab models --help`."""
    from services.model_verbs import app as verbs

    verbs(context.args, prog_name="trimtab models")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def presets(context: typer.Context) -> None:
    """The parameter sets that may be chosen: which, by whose odds, and governance by hand. See `trimtab presets --help`."""
    from services.preset_verbs import app as verbs

    verbs(context.args, prog_name="trimtab presets")


def _stack(data_dir: Path) -> Any:
    from shared.runtime.running import Stack

    return Stack.of(data_dir)


def main() -> None:
    """Run a verb; an error that is ours is one clear line, not a traceback."""
    try:
        app(prog_name="trimtab")
    except NeedsOperator as error:
        typer.echo(f"trimtab: {error}", err=True)
        sys.exit(78)
    except (BadMessage, TryAgain) as error:
        typer.echo(f"trimtab: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
