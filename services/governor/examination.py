"""Before and after the evidence: is the applicant what it says, which bars shall it be judged on, is the answer about
them? Pure. Each fault is a sentence that goes into the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from shared.artifacts.models import ModelManifest, load_model
from shared.artifacts.presets import preset_from_bytes, preset_id
from shared.artifacts.signing import trusted_manifest
from shared.contracts.errors import BadMessage
from shared.contracts.governance import ModelTrained, PresetCandidate
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.times import EPOCH, timeframe_length
from shared.trading.strategy import BadParams, Strategy


class Holdout(NamedTuple):
    """Bars that opened in [first, last]; none when `last` is before `first`."""

    first: datetime
    last: datetime
    bars: int  # that there can be


def preset_faults(said: PresetCandidate, strategies: Mapping[str, Strategy]) -> list[str]:
    """What keeps a preset from being judged at all."""
    try:
        preset = preset_from_bytes(said.preset, said.preset_id)
    except BadMessage as error:
        return [f"preset: {error}"]
    faults: list[str] = []
    about, told = (preset.strategy, preset.symbol, preset.timeframe), (said.strategy, said.symbol, said.timeframe)
    if about != told:
        faults.append(f"preset: expected one for {' '.join(told)}, was for {' '.join(about)}")
    strategy = strategies.get(preset.strategy)
    if strategy is None:
        faults.append(f"strategy: expected one of {', '.join(sorted(strategies))}, was {preset.strategy!r}")
        return faults
    if preset.source_hash != strategy.source:
        faults.append(f"source: expected {strategy.source[:12]}, the code we have, was {preset.source_hash[:12]}")
    try:
        strategy.params(preset.params)
    except BadParams as error:
        faults.append(f"params: {error}")
    if said.train is not None and said.test is not None and said.test.first <= said.train.last:
        faults.append(f"test: expected after the training's end {said.train.last}, begins {said.test.first}")
    return faults


def registration(preset: bytes) -> str:
    """What is fixed before a holdout is opened: code and parameters for an instrument, whoever proposed them."""
    return preset_id(msgspec.structs.replace(preset_from_bytes(preset), origin="backtest"))


def model_faults(said: ModelTrained, content: bytes | None, key: bytes) -> list[str]:
    """What keeps a model from being judged at all. `content` is its artifact, None when the bus has none; `key` is
    what it must be signed with, b"" where nothing is.
    """
    try:
        manifest = trusted_manifest(said.manifest, said.model_id, key)
        if content is None:
            return [f"artifact: expected {said.model_id[:12]} among the artifacts, it is not there"]
        load_model(content, said.model_id)
    except BadMessage as error:
        return [f"model: {error}"]
    about = (manifest.model_id, manifest.venue, manifest.symbol, manifest.timeframe, manifest.is_synthetic)
    told = (said.model_id, said.venue, said.symbol, said.timeframe, said.is_synthetic)
    if about != told or manifest.trained_on != said.trained_on:
        return [f"manifest: expected one of {told}, was of {about}"]
    return []


def preset_holdout(said: PresetCandidate, manual_bars: int) -> Holdout:
    """The bars that had closed when it was proposed and that its maker says not to have looked at.

    A preset without a backtest (origin manual) was found on no bars: it is judged on the last `manual_bars`.
    """
    used = [span.last for span in (said.train, said.test) if span is not None]
    length = timeframe_length(said.timeframe)
    after = max(used) if used else _last_closed(said.proposed_at, said.timeframe) - manual_bars * length
    return _holdout(after, said.proposed_at, said.timeframe)


def model_holdout(said: ModelTrained, manifest: ModelManifest) -> Holdout:
    """The bars that had closed when it was trained and that neither the fit nor the choice among fits has seen."""
    after = max(said.trained_on.last, manifest.held_out.last)
    return _holdout(after, said.trained_at, said.timeframe)


def evidence_faults(order: EvidenceOrdered, given: EvidenceGiven, known_sha256: str | None) -> list[str]:
    """What keeps an answer from being evidence. `known_sha256` is the hash of these very bars as told before."""
    if given.failure:
        return [f"evidence: {given.failure}"]
    if given.subject_id != order.subject_id or given.worker != order.worker:
        return [f"evidence: expected on {order.subject_id[:12]} by {order.worker}, was on {given.subject_id[:12]}"]
    if given.span is None or given.span.bars < 1:
        return ["evidence: expected the span that was judged, there is none"]
    faults: list[str] = []
    if not order.first <= given.span.first <= given.span.last <= order.last:
        faults.append(
            f"evidence: expected bars of {order.first} to {order.last}, were of {given.span.first} to {given.span.last}"
        )
    if known_sha256 is not None and known_sha256 != given.span.data_sha256:
        faults.append(
            f"evidence: these bars had the hash {known_sha256[:12]} before, now have {given.span.data_sha256[:12]}"
        )
    if order.worker == "backtest_suite" and (given.figures is None or given.stressed is None):
        faults.append("evidence: expected figures, also with doubled slippage, there are none")
    elif given.figures is not None and given.figures.bars > given.span.bars:
        faults.append(f"evidence: figures of {given.figures.bars} bars on a span of {given.span.bars}")
    return faults


def _holdout(after: datetime, asked_at: datetime, timeframe: str) -> Holdout:
    """All bars later than the one that opened at `after` and closed when it was asked."""
    length = timeframe_length(timeframe)
    first, last = after + length, _last_closed(asked_at, timeframe)
    return Holdout(first, last, max((last - first) // length + 1, 0))


def _last_closed(now: datetime, timeframe: str) -> datetime:
    """When the last bar opened that had closed by `now`."""
    length = timeframe_length(timeframe)
    return EPOCH + ((now - EPOCH) // length - 1) * length
