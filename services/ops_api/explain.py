"""Why: the chain from a bar to what came of it, in words. Follows the ids that messages name, and their causes."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from services.ops_api.now import sleeve_of
from services.ops_api.queries import Event, event, events_naming, last_event, reading_at
from shared.contracts.execution import OrderEvent, OrderSubmitted, Signal, TradeClosed, TradeFill
from shared.contracts.governance import ModelPromoted, PresetCandidate, PresetPromoted, StageChanged
from shared.contracts.jobs import EvidenceGiven
from shared.contracts.market import bar_named
from shared.contracts.parameters import ParamDecision, ParamOutcome
from shared.contracts.wire import Message, message_id
from shared.runtime.store import Store

STORY = 200  # steps at most
CAUSES = 20  # links at most


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened, in a sentence."""

    at: datetime
    kind: str
    id: str  # of the event
    text: str


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One link of the chain of causes, from the thing itself back to where its story began."""

    id: str
    source: str  # "" where only its id is known: bars are not kept as events


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The story of an id, oldest step first."""

    id: str
    kind: str
    summary: str
    steps: list[Step]
    causes: list[Cause]


async def explanation(store: Store, named: str) -> Explanation | None:
    """Why this trade, order, decision, preset, model or event came about; None when nothing speaks of it."""
    root = await _root(store, named)
    if root is None:
        return None
    story: dict[str, Event] = {root.id: root}

    async def tell(events: list[Event]) -> None:
        story.update((one.id, one) for one in events)

    message = root.message
    if isinstance(message, TradeClosed):
        await _tell_trade(store, message, tell)
    elif isinstance(message, OrderEvent | TradeFill):
        await tell(await events_naming(store, message.order_id))
    elif isinstance(message, ParamDecision):
        for kind in (ParamOutcome, Signal, OrderSubmitted, TradeClosed):
            await tell(await events_naming(store, message.decision_id, kind))
    for one in list(story.values()):  # what those rest on
        for name, kind in (("decision_id", ParamDecision), ("model_id", ModelPromoted), ("preset_id", PresetPromoted)):
            named_id = getattr(one.message, name, "")
            if named_id:
                await tell([rests for rests in await events_naming(store, named_id, kind) if _before(rests, one)][-1:])
    for one in list(story.values()):
        if isinstance(one.message, ModelPromoted | PresetPromoted):
            await _tell_admission(store, one.message, tell)
    if isinstance(message, StageChanged):
        await _tell_admission(store, message, tell)
    ordered = sorted(story.values(), key=lambda one: (one.message.happened_at, *_rank(one.message), one.id))
    steps = [
        Step(at=one.message.happened_at, kind=type(one.message).__name__, id=one.id, text=in_words(one.message))
        for one in ordered[:STORY]
    ]
    steps = await _with_reading(store, steps, story)
    return Explanation(
        id=named,
        kind=type(message).__name__,
        summary=in_words(message),
        steps=steps,
        causes=await _causes(store, root),
    )


async def _root(store: Store, named: str) -> Event | None:
    """The event that an id means first: the trade rather than its order, the verdict rather than what it judged."""
    if (own := await event(store, named)) is not None:
        return own
    for kind in (TradeClosed, OrderSubmitted, ParamDecision, StageChanged, PresetPromoted, ModelPromoted):
        field = _NAMED_BY[kind]
        found = [one for one in await events_naming(store, named, kind) if getattr(one.message, field) == named]
        if found:
            return found[-1]
    anything = await events_naming(store, named, limit=1)
    return anything[0] if anything else None


async def _tell_trade(store: Store, trade: TradeClosed, tell: Any) -> None:
    sleeve = sleeve_of(trade)
    for at in (trade.opened_at, trade.closed_at):
        signal = await last_event(store, Signal, sleeve, at)
        if signal is None:
            continue
        await tell([signal])
        # Orders that the signal led to share its story.
        order = await last_event(store, OrderSubmitted, sleeve, at)
        if order is not None:
            await tell(await events_naming(store, order.message.order_id))
    await tell([one for one in await events_naming(store, trade.trade_id) if not isinstance(one.message, TradeClosed)])
    if trade.decision_id:
        await tell(await events_naming(store, trade.decision_id, ParamOutcome))


async def _tell_admission(store: Store, message: Any, tell: Any) -> None:
    subject_id = getattr(message, "subject_id", "") or getattr(message, "preset_id", "") or message.model_id
    for kind in (StageChanged, PresetCandidate, EvidenceGiven):
        await tell((await events_naming(store, subject_id, kind))[-3:])


async def _with_reading(store: Store, steps: list[Step], story: dict[str, Event]) -> list[Step]:
    """Before each decision and signal: how the bar was read that it was made on."""
    told: list[Step] = []
    seen: set[datetime] = set()
    for step in steps:
        message = story[step.id].message
        opened_at = getattr(message, "decided_on", None) or (message.opened_at if isinstance(message, Signal) else None)
        if opened_at is not None and opened_at not in seen:
            seen.add(opened_at)
            read = await reading_at(store, message.symbol, message.timeframe, opened_at)
            if read is not None:
                regime, odds = read
                how = "the regime was unknown" if odds is None else f"the market was read as {regime} ({odds:.0%})"
                text = f"{message.symbol}: the bar of {opened_at:%Y-%m-%d %H:%M} closed; {how}."
                told.append(Step(at=step.at, kind="RegimeReading", id="", text=text))
        told.append(step)
    return told


async def _causes(store: Store, root: Event) -> list[Cause]:
    chain = [Cause(id=root.id, source=root.source)]
    one: Event | None = root
    while one is not None and one.cause != one.id and len(chain) < CAUSES:
        cause = await event(store, one.cause)
        chain.append(Cause(id=one.cause, source=cause.source if cause else ""))
        one = cause
    if chain[-1].id != root.correlation and bar_named(root.correlation):
        chain.append(Cause(id=root.correlation, source=""))
    return chain


def _before(rests: Event, one: Event) -> bool:
    return rests.message.happened_at <= one.message.happened_at


# What happens at the same instant happens in this order.
_ORDER: tuple[type[Message], ...] = (
    PresetCandidate,
    EvidenceGiven,
    StageChanged,
    ModelPromoted,
    PresetPromoted,
    ParamDecision,
    Signal,
    OrderSubmitted,
    OrderEvent,
    TradeFill,
    TradeClosed,
    ParamOutcome,
)
_NAMED_BY: dict[type[Message], str] = {
    TradeClosed: "trade_id",
    OrderSubmitted: "order_id",
    ParamDecision: "decision_id",
    StageChanged: "subject_id",
    PresetPromoted: "preset_id",
    ModelPromoted: "model_id",
}


def _rank(message: Message) -> tuple[int, int]:
    """Its place among what happens at the same instant. Lines of the record keep their order; the one that opens a
    holdout is written before anybody looks.
    """
    if isinstance(message, StageChanged):
        kind = PresetCandidate if message.after == "candidate" else StageChanged
        return _ORDER.index(kind), message.sequence
    return next((at for at, kind in enumerate(_ORDER) if isinstance(message, kind)), _ORDER.index(Signal)), 0


def in_words(message: Message) -> str:
    """One sentence on what happened. Kinds without one of their own are named with what they are about."""
    match message:
        case ParamDecision():
            odds = ", ".join(
                f"{short(preset)} {odds:.0%}"
                for preset, odds in sorted(message.propensities.items(), key=lambda o: -o[1])
            )
            return (
                f"Epoch {message.epoch} of {sleeve_of(message)}: preset {short(message.preset_id)} was drawn by "
                f"{message.policy_version}; the odds were {odds}."
            )
        case Signal() if message.exit_reason:
            return f"{sleeve_of(message)} wants out ({message.exit_reason})."
        case Signal():
            return (
                f"{sleeve_of(message)} wants an exposure of {message.exposure:+.2f} with preset "
                f"{short(message.preset_id)}, regime {message.regime}."
            )
        case OrderSubmitted():
            price = "" if message.price is None else f" at {message.price}"
            return f"{message.side.capitalize()} {amount(message.quantity)} {message.symbol}, {message.kind}{price}."
        case TradeFill():
            return (
                f"Filled: {message.side} {amount(message.quantity)} {message.symbol} at {amount(message.price)}, "
                f"fee {amount(message.fee)} {message.fee_asset}."
            )
        case TradeClosed():
            return (
                f"{message.side.capitalize()} {message.symbol} from {amount(message.entry_price)} to "
                f"{amount(message.exit_price)} in {message.bars_held} bars, left by {message.exit_reason}: "
                f"{message.pnl:+.2f} net of {message.fees:.2f} fees, {message.result_r:+.2f}R."
            )
        case ParamOutcome():
            return f"The bandit learned {message.reward:+.2f}R for preset {short(message.preset_id)}."
        case PresetPromoted():
            how = "passed the gate" if message.evidence_id else "is a default, admitted from birth on paper"
            return f"Preset {short(message.preset_id)} of {sleeve_of(message)} {how}."
        case ModelPromoted():
            return f"Model {short(message.model_id)} reads {sleeve_of(message)} from the next closed bar on."
        case StageChanged():
            reasons = "; ".join(message.reasons) or "no reason given"
            return (
                f"{message.kind.capitalize()} {short(message.subject_id)}: {message.before} to {message.after} "
                f"by {message.actor} ({message.profile}): {reasons}."
            )
        case PresetCandidate():
            figures = message.test_figures
            found = (
                ""
                if figures is None
                else (
                    f": out of sample {figures.net_return:+.1%} over {figures.trades} trades, "
                    f"the best of {message.trials} tried"
                )
            )
            return f"Preset {short(message.preset_id)} was proposed ({message.origin}){found}."
        case EvidenceGiven():
            return f"Evidence on {short(message.subject_id)} from {message.worker}: {message.failure or 'given'}."
        case OrderEvent():
            why = getattr(message, "reason", "")
            return f"{type(message).__name__.removeprefix('Order')}{': ' + why if why else ''}."
        case _:
            return message_id(message)


def short(name: str) -> str:
    """The first eight characters of a long id."""
    return name if len(name) <= 16 else name[:8]


def amount(value: Decimal) -> str:
    """A number as people write it: no exponent, no zeros behind."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
