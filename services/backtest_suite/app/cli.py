"""The earlier system's line, unchanged, inside services/backtest_suite:

    python -m app.cli --strategy momentum --data-dir ./historical --output-dir ./results

It is `trimtab backtest run` under its old name: bars from --data-dir, report and files into --output-dir.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[3]


def main(
    strategy: Annotated[str, typer.Option(help="A name from `trimtab strategies`, or a file.")],
    data_dir: Annotated[Path, typer.Option(help="A folder of files of bars, or one such file.")],
    output_dir: Annotated[Path, typer.Option(help="Where report, trades, equity and manifest go.")] = Path("results"),
    params: Annotated[str, typer.Option(help="Such as fast=20,slow=100.")] = "",
) -> None:
    """One backtest for each instrument of the folder."""
    sys.path[0] = str(ROOT)  # the folder one stands in has modules of its own names
    from services.backtest_suite.commands import app
    from shared.contracts.errors import TrimtabError

    given = ["run", strategy, "--data", str(data_dir), "--output-dir", str(output_dir)]
    given += ["--params", params, "--data-dir", str(ROOT / "var" / "backtests")]
    try:
        app(given, prog_name="trimtab backtest")
    except TrimtabError as error:
        typer.echo(f"trimtab: {error}", err=True)
        raise typer.Exit(78) from None


if __name__ == "__main__":
    typer.run(main)
