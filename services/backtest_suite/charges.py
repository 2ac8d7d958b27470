"""Costs as people write them, on the command line and over HTTP alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from shared.contracts.errors import BadMessage
from shared.contracts.governance import Costs, SlippageModel

# Models by name, with the figures that the docstring of SlippageModel gives.
MODELS = {
    "crypto": SlippageModel(weekend=1.5, stress=2.0, stress_fall=0.05, noise=0.75),
    "shares": SlippageModel(stress=2.0, stress_fall=0.03, noise=0.75),
}
SWITCHES = ("volatility", "size")
FIELDS = SlippageModel.__struct_fields__


def costs_of(*, fee_tiers: str = "", slippage_model: str = "", seed: int = 0, **given: Any) -> Costs:
    """The costs, with tiers and a slippage model as texts; `given` are other fields of `Costs`.

    Raises BadMessage that says what was expected.
    """
    try:
        return Costs(**given, tiers=tiers_of(fee_tiers), slippage_model=slippage_model_of(slippage_model, seed))
    except ValueError as error:
        raise BadMessage(str(error)) from error


def tiers_of(text: str) -> tuple[tuple[Decimal, float], ...]:
    """`100000=8,1000000=6`: from 100,000 (quote currency) traded in the run on 8 bps, from 1,000,000 on 6."""
    try:
        return tuple((Decimal(notional), float(bps)) for notional, bps in _pairs(text))
    except (InvalidOperation, ValueError) as error:
        raise BadMessage(
            f"Expected fee tiers such as 100000=8,1000000=6 (notional traded=bps), was {text!r}."
        ) from error


def slippage_model_of(text: str, seed: int = 0) -> SlippageModel | None:
    """`crypto` or `shares`, or the parts that shall be on: `volatility,size,weekend=1.5,noise=0.75`. "" is none.

    A name may begin such a list, and what follows it is another figure for it. `seed` is of the noise, unless the text
    says another.
    """
    if not text.strip():
        return None
    pairs = list(_pairs(text))
    model = msgspec.structs.replace(SlippageModel(volatility=False, size=False), seed=seed)
    if (pairs[0][0], pairs[0][1]) in ((name, "") for name in MODELS):
        model = msgspec.structs.replace(MODELS[pairs.pop(0)[0]], seed=seed)
    return msgspec.structs.replace(model, **dict(_figure(name, value, text) for name, value in pairs))


def _figure(name: str, value: str, text: str) -> tuple[str, bool | int | float]:
    if name in SWITCHES and value in ("", "on", "off"):
        return name, value != "off"
    if name not in FIELDS or name in SWITCHES:
        near = difflib.get_close_matches(name, [*MODELS, *FIELDS], 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadMessage(
            f"A slippage model is {' or '.join(MODELS)}, or some of {', '.join(FIELDS)}, was {text!r}.{hint}"
        )
    try:
        return name, int(value) if name == "seed" else float(value)
    except ValueError as error:
        raise BadMessage(f"Expected a number such as {name}=1.5 in the slippage model, was {name}={value}.") from error


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """`a=1,b` -> (a, 1), (b, "")."""
    for word in text.split(","):
        if word.strip():
            name, _, value = word.partition("=")
            yield name.strip(), value.strip()
