"""What the other verbs print: a running stack's answers as tables, or as one JSON object."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from services.printing import console, show_json, show_table, shown
from shared.contracts.errors import NeedsOperator
from shared.runtime.running import Stack
from shared.runtime.settings import strategies_folder


def show_status(stack: Stack, as_json: bool) -> None:
    """Counts, then the services."""
    status = stack.get("ops_api", "/status")
    if as_json:
        show_json(status)
        return
    counts = Table("what", "now", title="Trimtab", title_justify="left")
    for name, value in status.items():
        if not isinstance(value, (dict, list)):
            counts.add_row(name, shown(value))
    for name, count in status["regimes"].items():
        counts.add_row(f"regime {name}", str(count))
    console.print(counts)
    services = Table("service", "health", "waiting for", "restarts", title="Services", title_justify="left")
    for each in status["services"]:
        services.add_row(each["service"], each["health"], ", ".join(each["waiting_for"]), str(each["restarts"]))
    console.print(services)


def show_stats(stack: Stack, as_json: bool) -> None:
    """The trade statistics."""
    stats = stack.get("ops_api", "/trades/stats")
    if as_json:
        show_json(stats)
        return
    table = Table("figure", "value", title="Trade statistics, net of costs", title_justify="left")
    for name, value in stats.items():
        table.add_row(name, shown(value))
    console.print(table)


def show_trades(stack: Stack, limit: int, as_json: bool) -> None:
    """Closed trades, newest first."""
    page = stack.get("ops_api", "/trades", limit=limit)
    show_table(
        page["trades"],
        ("closed_at", "strategy", "symbol", "side", "pnl", "result_r", "exit_reason", "trade_id"),
        as_json,
    )


def show_positions(stack: Stack, as_json: bool) -> None:
    """What is held."""
    rows = stack.get("ops_api", "/positions")["positions"]
    show_table(
        rows, ("strategy", "symbol", "quantity", "entry_price", "mark_price", "unrealized", "preset_id"), as_json
    )


def show_explanation(stack: Stack, subject: str, as_json: bool) -> None:
    """The chain of why, in words."""
    found = stack.get("ops_api", f"/explain/{subject}")
    if as_json:
        show_json(found)
        return
    console.print(found["summary"], markup=False, style="bold")
    for step in found["steps"]:
        console.print(f"{shown(step['at'])}  {step['text']}", markup=False)


def command(stack: Stack, name: str, reason: str, as_json: bool) -> None:
    """Give the engine a command, and say what it answered."""
    answer = stack.post("ops_api", f"/ops/{name}", {"reason": reason})
    if as_json:
        show_json(answer)
    else:
        console.print(f"{name}: {answer['detail']}", markup=False)


def show_record(stack: Stack, after: int, as_json: bool) -> None:
    """The governor's record."""
    rows = record_of(stack, after)
    if as_json:
        show_json(list(rows))
        return
    for row in rows:
        reasons = "; ".join(row["reasons"])
        console.print(
            f"{row['sequence']:>5}  {row['changed_at']}  {row['kind']} {row['subject_id'][:12]}  {row['symbol']} "
            f"{row['strategy']}  {row['before']} -> {row['after']}  [{row['profile']}]  {reasons}",
            markup=False,
            soft_wrap=True,
        )


def record_of(stack: Stack, after: int = 0) -> Iterator[dict[str, Any]]:
    """The lines of the governor's record that follow this one, oldest first."""
    while page := stack.get("governor", "/governance/log", after=after)["log"]:
        yield from page
        after = page[-1]["sequence"]


def verify_record(stack: Stack, as_json: bool) -> int:
    """0 when every hash of the record holds, else 1."""
    found = stack.get("governor", "/governance/verify")
    if as_json:
        show_json(found)
    else:
        console.print(found["detail"], markup=False)
    return 0 if found["valid"] else 1


def show_strategies(as_json: bool) -> None:
    """Names, parameters, bounds."""
    from shared.trading.strategies import load_all

    rows = [strategy.schema() for strategy in load_all(strategies_folder()).values()]
    if as_json:
        show_json(rows)
        return
    for row in rows:
        title = str(row["name"])
        if "instruments" in row:
            least, most = row["instruments"].values()
            title += f" (over {least} instruments)" if least == most else f" (over {least} or more instruments)"
        table = Table("parameter", "default", "least", "most", title=title, title_justify="left")
        for name, field in row["params"].items():
            table.add_row(name, str(field["default"]), str(field["low"]), str(field["high"]))
        console.print(table)


STRATEGY_TEXT = '''"""{title}: say in one line when it buys, and why that should earn."""

from typing import NamedTuple

from trimtab import Bar, Regime, Sma, Target, flat, is_ready, kernel, long, sma, sma_step, strategy, value


class Params(NamedTuple):
    fast: int = 20  # bars
    slow: int = 100  # bars


class State(NamedTuple):
    fast: Sma
    slow: Sma


@kernel
def start(p: Params) -> State:
    return State(sma(p.fast), sma(p.slow))


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    s = State(sma_step(s.fast, bar.close), sma_step(s.slow, bar.close))
    return s, long() if is_ready(s.slow) and value(s.fast) > value(s.slow) else flat()


STRATEGY = strategy(
    "{name}",
    Params,
    start,
    step,
    bounds={{"fast": (2, 200), "slow": (5, 800)}},
    rule=lambda p: p.fast < p.slow,
    warmup=lambda p: p.slow,
)
'''


def begin_strategy(name: str, folder: Path) -> None:
    """Write a strategy file that already runs. Raises NeedsOperator for a bad name or a file that is there."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", name):
        raise NeedsOperator(f"A strategy's name must be lower-case words with _, such as my_breakout, was {name!r}.")
    file = folder / f"{name}.py"
    if file.exists():
        raise NeedsOperator(f"{file} is there already. Choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(STRATEGY_TEXT.format(name=name, title=name.replace("_", " ").capitalize()), encoding="utf-8")
    console.print(f"Wrote {file}. Change it, then see it in `trimtab strategies`.", markup=False)
