"""The versions of a model: what each promised, what the governor said of it, and whether it reads now.

All of it was heard: a candidate's manifest from ml_service, the verdicts from the governor. Nothing is asked here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from services.ops_api import queries
from services.ops_api.now import Now
from shared.artifacts.models import ModelManifest, manifest_from_bytes
from shared.contracts.errors import BadMessage
from shared.contracts.governance import (
    ModelDemoted,
    ModelDrifted,
    ModelPromoted,
    ModelTrained,
    Span,
    Stage,
    StageChanged,
)
from shared.contracts.wire import Message
from shared.runtime.store import Store

M = TypeVar("M", bound=Message)
KINDS = (ModelTrained, ModelPromoted, ModelDemoted, ModelDrifted, StageChanged)


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One model of one series. Of one whose manifest cannot be read only what the governor said is known."""

    model_id: str
    symbol: str
    timeframe: str
    stage: Stage
    is_in_use: bool
    reasons: tuple[str, ...]  # of the governor's last word: what failed, or what passed with its figures
    actor: str  # whose word it was; "" before any
    judged_at: datetime | None
    promoted_at: datetime | None  # the last time
    demoted_at: datetime | None  # None while it is not, or no longer
    drifted_at: datetime | None  # the last time that it foretold its market worse than promised
    how: str  # cold, warm or stepwise; "" when unreadable
    states: int
    tag: str
    is_synthetic: bool
    trained_on: Span | None
    held_out: Span | None
    scores: dict[str, float]  # on the held-out bars: log_likelihood in nats a bar, agreement, temperature, ...
    trained_at: datetime | None
    unreadable: str  # what is wrong with its manifest; "" when nothing is


async def model_versions(store: Store, now: Now, series: str, limit: int) -> list[ModelVersion]:
    """The models of a series ("" for all) that were last trained or promoted, the newest first."""
    heard = [
        one.message
        for kind in (ModelTrained, ModelPromoted)
        for one in await queries.recent(store, kind, limit, series)
    ]
    heard.sort(key=lambda message: message.happened_at, reverse=True)
    wanted = list(dict.fromkeys(message.model_id for message in heard))[:limit]
    told: dict[str, list[Message]] = defaultdict(list)
    for event in await queries.events_on(store, wanted, KINDS):
        message: ModelTrained | ModelPromoted | ModelDemoted | ModelDrifted | StageChanged = event.message
        told[message.subject_id if isinstance(message, StageChanged) else message.model_id].append(message)
    in_use = {model.model_id for model in now.models.values()}
    return [version(told[model_id], is_in_use=model_id in in_use) for model_id in wanted]


def version(told: Sequence[Message], *, is_in_use: bool) -> ModelVersion:
    """What the events on one model, oldest first, make of it. One of them must be its training or promotion."""
    born = _last(told, ModelTrained) or _last(told, ModelPromoted)
    if born is None:
        raise ValueError(f"A model is known by its training or its promotion, told was {told!r}.")
    promoted, demoted, drifted = (_last(told, kind) for kind in (ModelPromoted, ModelDemoted, ModelDrifted))
    verdict = max((one for one in told if isinstance(one, StageChanged)), key=lambda one: one.sequence, default=None)
    manifest, unreadable = _manifest(born.manifest)
    is_down = demoted is not None and (promoted is None or demoted.happened_at > promoted.happened_at)
    return ModelVersion(
        model_id=born.model_id,
        symbol=born.symbol,
        timeframe=born.timeframe,
        stage=verdict.after if verdict else "candidate",
        is_in_use=is_in_use,
        reasons=verdict.reasons if verdict else (),
        actor=verdict.actor if verdict else "",
        judged_at=verdict.changed_at if verdict else None,
        promoted_at=promoted.happened_at if promoted else None,
        demoted_at=demoted.happened_at if demoted and is_down else None,
        drifted_at=drifted.happened_at if drifted else None,
        how=manifest.how if manifest else "",
        states=len(manifest.labels) if manifest else 0,
        tag=manifest.tag if manifest else "",
        is_synthetic=manifest.is_synthetic if manifest else False,
        trained_on=manifest.trained_on if manifest else None,
        held_out=manifest.held_out if manifest else None,
        scores=manifest.scores if manifest else {},
        trained_at=manifest.trained_at if manifest else None,
        unreadable=unreadable,
    )


async def promises(store: Store, model_ids: Iterable[str]) -> dict[str, float]:
    """What each of these models promised on its held-out bars: log-likelihood of a bar, nats. Only where it is known."""
    found: dict[str, float] = {}
    for event in await queries.events_on(store, model_ids, (ModelTrained, ModelPromoted)):
        manifest, _ = _manifest(event.message.manifest)
        if manifest is not None and math.isfinite(promised := manifest.scores.get("log_likelihood", math.nan)):
            found[event.message.model_id] = promised
    return found


def _last(told: Sequence[Message], kind: type[M]) -> M | None:
    return next((one for one in reversed(told) if isinstance(one, kind)), None)


def _manifest(blob: bytes) -> tuple[ModelManifest | None, str]:
    try:
        return manifest_from_bytes(blob), ""
    except BadMessage as error:  # shown as it is: whether it may read is the governor's to say
        return None, str(error)
