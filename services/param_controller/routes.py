"""The controller's routes: register a preset, ask for the one to use, tell what it earned."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Path, Query, Request
from pydantic import BaseModel, Field

from services.param_controller.controller import ParamController
from services.param_controller.memory import keep_lesson
from services.param_controller.settings import ParamSettings
from services.param_controller.sleeves import Key, Lesson, Series, Sleeve
from shared.artifacts.presets import preset_bytes, preset_from_bytes, preset_id, preset_of
from shared.contracts.governance import PresetCandidate
from shared.contracts.instruments import check_symbol
from shared.contracts.parameters import ParamDecision, ParamOutcome
from shared.contracts.subjects import PARAM_OUTCOME, PRESET_CANDIDATE
from shared.contracts.times import timeframe_length
from shared.regimes.context import CONTEXT_NAMES, CONTEXT_SCHEMA, UNKNOWN_CONTEXT
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.web import allowed
from shared.trading.strategy import BadParams

FEATURE = re.compile(r"features\[(\w+)\]")
Token = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Timeframe = Annotated[str | None, Query(description="Of the bars; the house's when not given.")]


class Registration(BaseModel, extra="forbid"):
    """A parameter set that a person proposes. `preset_id` is their name for it."""

    preset_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    params: dict[str, bool | int | float]


class Outcome(BaseModel, extra="forbid"):
    """What a choice earned, in units of risk, in which context."""

    reward: float = Field(allow_inf_nan=False, ge=-1000, le=1000)
    features: dict[str, float] = Field(default_factory=dict)
    decision_id: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")


class Registered(BaseModel):
    preset_id: str  # SHA-256 of the preset: its name in every message
    name: str
    stage: str
    message: str


class Choice(BaseModel):
    config_id: str
    params: dict[str, bool | int | float]
    policy_version: str
    features_used: dict[str, float]
    decision_id: str
    propensities: dict[str, float]


class Learned(BaseModel):
    decision_id: str
    preset_id: str
    applied: bool  # False: this decision's outcome was given before
    lessons: int  # of this preset


def routes(host: Host[ParamSettings], controller: ParamController) -> APIRouter:
    """The three routes. Asking changes nothing; registering is for trainers, teaching for operators."""
    router = APIRouter()

    @router.post("/preset/register/{strategy}/{instrument}", dependencies=[allowed("trainer")])
    async def register(strategy: Token, instrument: str, body: Registration, timeframe: Timeframe = None) -> Registered:
        """Propose a parameter set to the governor. The same again changes nothing; another under its name is a 409."""
        sleeve = _sleeve(controller, host.settings, strategy, instrument, timeframe)
        known = controller.strategies[strategy]
        try:
            params = known.params(body.params)
        except BadParams as error:
            raise HTTPException(422, str(error)) from error
        preset = preset_of(known, params._asdict(), sleeve.key.symbol, sleeve.key.timeframe, "manual")
        made = preset_id(preset)

        async def work(effects: Effects) -> None:
            named = await _named(host, sleeve.key, body.preset_id)
            if named == made:
                return
            if named is not None:
                raise HTTPException(409, f"{body.preset_id!r} is {named[:12]} and stays it: take another name.")
            effects.execute(
                "insert into names values (?, ?, ?, ?, ?, ?, ?)",
                *sleeve.key,
                body.preset_id,
                made,
                preset_bytes(preset).decode(),
            )
            candidate = PresetCandidate(
                preset_id=made,
                preset=preset_bytes(preset),
                venue=sleeve.key.venue,
                strategy=strategy,
                symbol=sleeve.key.symbol,
                timeframe=sleeve.key.timeframe,
                origin="manual",
                train=None,
                train_figures=None,
                test=None,
                test_figures=None,
                costs=None,
                trials=0,
                proposed_at=host.clock.now(),
            )
            effects.publish(PRESET_CANDIDATE, candidate)

        await host.act(work)
        return Registered(
            preset_id=made, name=body.preset_id, stage="candidate", message="The governor judges it on bars it chooses."
        )

    @router.get("/param/{strategy}/{instrument}")
    async def param(strategy: Token, instrument: str, request: Request, timeframe: Timeframe = None) -> Choice:
        """The preset to use now. Within an epoch the answer is the epoch's decision, whatever features are sent.

        Where no epoch is under way a choice is made for the features sent (those of the last reading when none are):
        the same answer until the next lesson, and nothing is kept of it.
        """
        sleeve = _sleeve(controller, host.settings, strategy, instrument, timeframe)
        given = _features(dict(request.query_params))
        current = sleeve.current
        if current is not None and current.preset_id in sleeve.arms:
            return _answer(
                sleeve,
                current.preset_id,
                current.policy_version,
                current.context,
                current.context_schema,
                current.decision_id,
                current.propensities,
            )
        arms = sleeve.known()
        if not arms:
            raise HTTPException(409, f"No preset is admitted for {strategy} on {instrument}: register one.")
        context = _context(controller, sleeve, given)
        asked = hashlib.sha256(f"{sleeve.key} {context.schema} {context.values!r} {sleeve.lessons}".encode())
        name = f"ask-{asked.hexdigest()[:32]}"
        chosen, odds, version = controller.choice(sleeve, arms, context.values, context.schema, name)
        return _answer(sleeve, chosen, version, context.values, context.schema, name, odds)

    @router.post("/learn/outcome/{strategy}/{instrument}/{preset_id}", dependencies=[allowed("operator")])
    async def learn(
        strategy: Token, instrument: str, preset_id: Token, body: Outcome, timeframe: Timeframe = None
    ) -> Learned:
        """Tell what a choice earned. Of each decision one outcome is learned; without an id each call is one."""
        sleeve = _sleeve(controller, host.settings, strategy, instrument, timeframe)
        preset = preset_id if preset_id in sleeve.arms else await _named(host, sleeve.key, preset_id)
        if preset is None:
            raise HTTPException(404, f"{preset_id!r} is no preset of {strategy} on {instrument}.")
        applied: list[Lesson] = []

        async def work(effects: Effects) -> None:
            made = body.decision_id or f"told-{sleeve.lessons + 1}-{host.clock.now():%Y%m%dT%H%M%S%f}"
            if await host.store.row("select 1 from lessons where decision_id = ?", made):
                return
            decided = await _decision(host, made)
            if decided is not None and decided.preset_id != preset:
                raise HTTPException(409, f"Decision {made} chose {decided.preset_id[:12]}, not {preset[:12]}.")
            context = (
                Context(decided.context, decided.context_schema)
                if decided is not None
                else _context(controller, sleeve, body.features)
            )
            lesson = Lesson(
                preset_id=preset,
                context=context.values,
                context_schema=context.schema,
                outcome=ParamOutcome(
                    decision_id=made,
                    venue=sleeve.key.venue,
                    strategy=strategy,
                    symbol=sleeve.key.symbol,
                    timeframe=sleeve.key.timeframe,
                    preset_id=preset,
                    trade_id="",
                    reward=body.reward,
                    learned_at=host.clock.now(),
                ),
            )
            controller.learn(sleeve.key, lesson)
            effects.add(keep_lesson(sleeve.key, lesson))
            effects.publish(PARAM_OUTCOME, lesson.outcome)
            applied.append(lesson)

        await host.act(work)
        name = applied[0].outcome.decision_id if applied else body.decision_id or ""
        lessons = sum(bandit.lessons(preset) for bandit in sleeve.bandits.values())
        return Learned(decision_id=name, preset_id=preset, applied=bool(applied), lessons=lessons)

    return router


@dataclass(frozen=True)
class Context:
    """What a choice was made on."""

    values: tuple[float, ...]
    schema: str


def _sleeve(
    controller: ParamController, settings: ParamSettings, strategy: str, instrument: str, timeframe: str | None
) -> Sleeve:
    """The sleeve of a route's path. Raises 404 for a strategy that is not traded, BadMessage for a strange symbol."""
    timeframe = timeframe or settings.timeframe
    timeframe_length(timeframe)
    sleeve = controller.sleeve(Key(settings.venue, strategy, check_symbol(instrument), timeframe))
    if sleeve is None:
        traded = ", ".join(sorted(controller.strategies))
        raise HTTPException(404, f"The strategies traded here are {traded}, not {strategy!r}.")
    return sleeve


def _features(query: dict[str, str]) -> dict[str, float]:
    """`features[bull]=0.7&...` as numbers. A value that is not a number is a 422: context is never dropped in silence."""
    found: dict[str, float] = {}
    for key, text in query.items():
        if key == "timeframe":
            continue
        named = FEATURE.fullmatch(key)
        if named is None:
            raise HTTPException(422, f"Expected features[NAME]=NUMBER or timeframe, was {key!r}.")
        try:
            found[named[1]] = float(text)
        except ValueError:
            raise HTTPException(422, f"{key} must be a number, was {text!r}.") from None
    return found


def _context(controller: ParamController, sleeve: Sleeve, given: dict[str, float]) -> Context:
    """The context that these features make; without any, the last reading's. `bias` is always 1 and need not be sent."""
    if not given:
        reading = controller.readings.get(Series(sleeve.key.venue, sleeve.key.symbol, sleeve.key.timeframe))
        return (
            Context(UNKNOWN_CONTEXT, CONTEXT_SCHEMA)
            if reading is None
            else Context(reading.context, reading.context_schema)
        )
    given = {"bias": 1.0, **given}
    if set(given) != set(CONTEXT_NAMES):
        raise HTTPException(422, f"Expected the features {', '.join(CONTEXT_NAMES)}, were {', '.join(given)}.")
    values = tuple(given[name] for name in CONTEXT_NAMES)
    if not all(abs(value) < 1e6 for value in values):  # NaN is not below anything
        raise HTTPException(422, f"Features must be finite numbers below a million, were {given}.")
    return Context(values, CONTEXT_SCHEMA)


def _answer(
    sleeve: Sleeve,
    chosen: str,
    version: str,
    context: tuple[float, ...],
    schema: str,
    decided: str,
    odds: dict[str, float],
) -> Choice:
    names = schema.partition("/")[0].split(",")
    names = names if len(names) == len(context) else [str(n) for n in range(len(context))]
    return Choice(
        config_id=chosen,
        params=preset_from_bytes(sleeve.arms[chosen].preset).params,
        policy_version=version,
        features_used=dict(zip(names, context, strict=True)),
        decision_id=decided,
        propensities=odds,
    )


async def _named(host: Host[Any], key: Key, name: str) -> str | None:
    """The id of the preset to which a person gave this name."""
    row = await host.store.row(
        "select preset_id from names where venue = ? and strategy = ? and symbol = ? and timeframe = ? and name = ?",
        *key,
        name,
    )
    return None if row is None else str(row[0])


async def _decision(host: Host[Any], name: str) -> ParamDecision | None:
    row = await host.store.row("select body from decisions where decision_id = ?", name)
    return None if row is None else msgspec.json.decode(row[0], type=ParamDecision)
