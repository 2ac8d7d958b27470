"""`trimtab presets`: the parameter sets that may be chosen, as they are used now and as the governor rules on them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from services.answers import record_of
from services.options import DEFAULT_DATA, DataDir, Json, Reason
from services.printing import console, show_json, show_ruling, shown
from shared.contracts.errors import NeedsOperator
from shared.runtime.running import Stack

app = typer.Typer(
    help="The parameter sets that may be chosen: which there are, with what odds, and governance by hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

PresetId = Annotated[str, typer.Argument(metavar="PRESET", help="A preset's id, or its first characters.")]


@app.command("list")
def list_presets(
    strategy: Annotated[str, typer.Option(help="Only of this strategy.")] = "",
    symbol: Annotated[str, typer.Option(help="Only of this instrument.")] = "",
    data_dir: DataDir = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Those that are admitted, sleeve by sleeve: the one that new positions follow, and the odds of its choice."""
    found = [
        sleeve
        for sleeve in Stack.of(data_dir).get("ops_api", "/presets")["sleeves"]
        if strategy in ("", sleeve["strategy"]) and symbol in ("", sleeve["symbol"])
    ]
    if as_json:
        return show_json(found)
    table = Table("preset", "sleeve", "odds", "origin", "since", "params", box=SIMPLE_HEAD)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for sleeve in found:
        for preset in sleeve["presets"]:
            table.add_row(
                preset["preset_id"][:12],
                f"{sleeve['strategy']} {sleeve['symbol']} {sleeve['timeframe']}",
                "" if preset["propensity"] is None else f"{preset['propensity']:.0%}",
                preset["origin"],
                shown(preset["admitted_at"]),
                _spelled(preset["params"]),
                style="bold" if preset["is_chosen"] else None,
            )
    console.print(table)


@app.command()
def show(preset: PresetId, data_dir: DataDir = DEFAULT_DATA, as_json: Json = False) -> None:
    """One preset: where it may trade, its parameters, and every line of the governor's record on it."""
    stack = Stack.of(data_dir)
    sleeve, found = _found(stack, preset)
    record = [line for line in record_of(stack) if line["subject_id"] == found["preset_id"]]
    if as_json:
        place = {name: sleeve[name] for name in ("strategy", "symbol", "timeframe")}
        return show_json({**place, **found, "record": record})
    console.print(f"Preset {found['preset_id']}", style="bold", soft_wrap=True)
    table = Table("what", "value")
    table.add_row("sleeve", f"{sleeve['strategy']} {sleeve['symbol']} {sleeve['timeframe']}")
    table.add_row("origin", found["origin"])
    table.add_row("since", shown(found["admitted_at"]))
    table.add_row("chosen now", "yes" if found["is_chosen"] else "no")
    table.add_row("odds", "" if found["propensity"] is None else f"{found['propensity']:.1%}")
    for name, value in found["params"].items():
        table.add_row(name, str(value))
    console.print(table)
    for line in record:
        reasons = "; ".join(line["reasons"])
        console.print(
            f"{shown(line['changed_at'])}  {line['before']} -> {line['after']}  [{line['profile']}]  {reasons}",
            markup=False,
        )


@app.command()
def promote(
    preset: PresetId, reason: Reason = "by hand", data_dir: DataDir = DEFAULT_DATA, as_json: Json = False
) -> None:
    """Admit one that was refused or demoted, by its whole id. The governor records it, and may refuse."""
    _by_hand("promote", preset, Stack.of(data_dir), reason, as_json)


@app.command()
def demote(
    preset: PresetId, reason: Reason = "by hand", data_dir: DataDir = DEFAULT_DATA, as_json: Json = False
) -> None:
    """Have it chosen no more; a position that it opened is managed to its end."""
    stack = Stack.of(data_dir)
    _, found = _found(stack, preset)
    _by_hand("demote", found["preset_id"], stack, reason, as_json)


def _by_hand(action: str, preset_id: str, stack: Stack, reason: str, as_json: bool) -> None:
    show_ruling(stack.post("governor", f"/governance/preset/{preset_id}/{action}", {"reason": reason}), as_json)


def _found(stack: Stack, beginning: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The admitted preset whose id begins so, and its sleeve."""
    found = [
        (sleeve, preset)
        for sleeve in stack.get("ops_api", "/presets")["sleeves"]
        for preset in sleeve["presets"]
        if preset["preset_id"].startswith(beginning)
    ]
    if not found:
        raise NeedsOperator(f"No preset {beginning} is admitted here: `trimtab presets list` names those that are.")
    if len(found) > 1:
        names = ", ".join(preset["preset_id"][:16] for _, preset in found)
        raise NeedsOperator(f"Say more of the id than {beginning}: there are {names}.")
    return found[0]


def _spelled(params: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )
