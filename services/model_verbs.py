"""`trimtab models`: the versions of the regime model, as ml_service keeps them and the governor rules on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from services.options import DEFAULT_DATA, DataDir, Json, Reason
from services.printing import console, show_json, show_ruling
from shared.runtime.running import Stack

app = typer.Typer(
    help="The versions of the regime model: what they are, how two differ, which one reads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Version = Annotated[str, typer.Argument(help="A version's id, or its first 6 characters or more.")]
METRIC = "log_likelihood"
PER_FEATURE = ("center", "spread")  # all other parameters are per state


class Difference(NamedTuple):
    """What is not the same in two versions. None where one of them has no such thing."""

    what: str
    first: Any
    second: Any


@app.command("list")
def list_models(
    symbol: Annotated[str, typer.Option(help="Only of this instrument.")] = "",
    data_dir: DataDir = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """All versions, newest first: on what each was trained, how it did on held-out bars, what the governor said."""
    versions = [one for one in Stack.of(data_dir).get("ml_service", "/models") if symbol in ("", one["symbol"])]
    if as_json:
        return show_json(versions)
    table = Table("version", "series", "stage", "until", "bars", "nats a bar", "agrees", box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for one in versions:
        span = one["trained_on"]
        table.add_row(
            one["model_id"][:12],
            f"{one['symbol']} {one['timeframe']}",
            "in use" if one["active"] else one["stage"],
            span["last"][:10],
            str(span["bars"]),
            f"{one['scores'][METRIC]:.3f}",
            "" if one.get("agreement") is None else f"{one['agreement']:.0%}",
        )
        notes = [one.get("tag", ""), "synthetic" if one["is_synthetic"] else "", "signed" if one["is_signed"] else ""]
        if any(notes):
            table.add_row("", ", ".join(note for note in notes if note), style="dim")
    console.print(table)


@app.command()
def show(version: Version, data_dir: DataDir = DEFAULT_DATA, as_json: Json = False) -> None:
    """One version: its data by hash, its scores, its label map, its parameters."""
    found = Stack.of(data_dir).get("ml_service", f"/models/{version}")
    if as_json:
        return show_json(found)
    console.print(f"Model {found['model_id']}", style="bold", soft_wrap=True)
    table = Table("what", "value")
    for what, value in _facts(found):
        table.add_row(what, _text(value))
    console.print(table)


@app.command()
def diff(first: Version, second: Version, data_dir: DataDir = DEFAULT_DATA, as_json: Json = False) -> None:
    """What differs between two versions, side by side: data, scores, label map, parameters by state and feature."""
    stack = Stack.of(data_dir)
    one, other = (stack.get("ml_service", f"/models/{version}") for version in (first, second))
    found = differences(one, other)
    alike = len({what for what, _ in (*_facts(one), *_facts(other))}) - len(found)
    if as_json:
        return show_json(
            {
                "first": one["model_id"],
                "second": other["model_id"],
                "differences": [each._asdict() for each in found],
                "alike": alike,
            }
        )
    table = Table("what", one["model_id"][:12], other["model_id"][:12], "change")
    for what, before, after in found:
        table.add_row(what, _text(before), _text(after), _change(before, after))
    console.print(table)
    console.print(f"{alike} other facts are alike.")


@app.command()
def promote(
    version: Version, reason: Reason = "by hand", data_dir: DataDir = DEFAULT_DATA, as_json: Json = False
) -> None:
    """Have this version read its series from the next closed bar on. The governor records it, and may refuse."""
    stack = Stack.of(data_dir)
    model_id = stack.get("ml_service", f"/models/{version}")["model_id"]
    show_ruling(stack.post("governor", f"/governance/model/{model_id}/promote", {"reason": reason}), as_json)


@app.command()
def rollback(
    symbol: Annotated[str, typer.Argument(help="Such as BTC-USDT.")],
    timeframe: Annotated[str, typer.Option(help="Such as 1h, where models read several.")] = "",
    reason: Reason = "by hand",
    data_dir: DataDir = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Have the version before read again. The governor records it, and may refuse."""
    body = {"symbol": symbol, "timeframe": timeframe, "reason": reason}
    show_ruling(Stack.of(data_dir).post("governor", "/governance/model/rollback", body), as_json)


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    """What differs between two versions as `GET /models/{id}` tells them; states are compared by name, not by index."""
    one, other = dict(_facts(first)), dict(_facts(second))
    return [
        Difference(what, one.get(what), other.get(what))
        for what in dict.fromkeys((*one, *other))
        if one.get(what) != other.get(what)
    ]


def _facts(version: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Everything that is told of a version, each number under a name of its own."""
    states = _numbered(version["labels"])
    features = version["feature_schema"].partition("/")[0].split(",")
    for what, value in version.items():
        if what == "parameters":
            for name, numbers in value.items():
                axes = (
                    [features]
                    if name in PER_FEATURE
                    else [states, states if name == "transition" else features, features]
                )
                yield from _cells(name, numbers, axes)
        elif what == "labels":
            yield "label map", ", ".join(f"{index}: {label}" for index, label in enumerate(value))
        elif what == "chunks":
            yield "chunks", ", ".join(part["data_sha256"][:12] for part in value)
        elif isinstance(value, dict):
            yield from ((f"{what}.{name}", one) for name, one in value.items())
        else:
            yield what, value


def _cells(name: str, numbers: Any, axes: Sequence[Sequence[str]]) -> Iterator[tuple[str, Any]]:
    """Each number of a nested list, by the names of its places."""
    if isinstance(numbers, list):
        for place, one in zip(axes[0], numbers, strict=True):
            yield from _cells(f"{name}[{place}]", one, axes[1:])
    else:
        yield name, numbers


def _numbered(labels: Sequence[str]) -> list[str]:
    """The states' names; the second CHOP is `CHOP 2`."""
    return [
        label if label not in labels[:k] else f"{label} {1 + labels[:k].count(label)}" for k, label in enumerate(labels)
    ]


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _change(before: Any, after: Any) -> str:
    both_numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (before, after))
    return f"{after - before:+.4g}" if both_numbers else ""
