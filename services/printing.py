"""How the answers of a running stack are shown: as tables for people, or as one JSON object on the last line."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
MONEY = re.compile(r"-?\d+\.\d{5,}")  # exact, and longer than anybody reads; --json has all of it
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


def shown(value: Any) -> str:
    """One answer as people read it."""
    if isinstance(value, dict) and value.keys() == {"low", "high", "confidence"}:
        return f"{shown(value['low'])} to {shown(value['high'])} ({value['confidence']:.0%})"
    if isinstance(value, float):
        return f"{value:.4f}"
    text = "" if value is None else str(value)
    if MONEY.fullmatch(text):
        return f"{Decimal(text):.4f}"
    return text[:16].replace("T", " ") if INSTANT.match(text) else text


def show_table(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    """What stands in these columns; the last one, an id, is never cut short."""
    if as_json:
        show_json(rows)
        return
    if not rows:
        console.print("None.")
        return
    table = Table(box=SIMPLE_HEAD)
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    for row in rows:
        table.add_row(*(shown(row[column]) for column in columns))
    console.print(table)


def show_json(value: Any) -> None:
    """One object on one line."""
    console.print(json.dumps(value, default=str), markup=False, soft_wrap=True)


def show_ruling(log: dict[str, Any], as_json: bool) -> None:
    """The lines of the record that a decision by hand wrote."""
    if as_json:
        return show_json(log)
    for line in log["log"]:
        console.print(
            f"line {line['sequence']}: {line['subject_id'][:12]} of {line['symbol']} {line['timeframe']}, "
            f"{line['before']} -> {line['after']}: {'; '.join(line['reasons'])}",
            markup=False,
            soft_wrap=True,
        )
