"""The sleeves: which presets each may use, with what odds it chose, and what it earned."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from services.ops_api.now import Now, SleeveResult
from shared.artifacts.presets import preset_from_bytes
from shared.contracts.errors import BadMessage
from shared.contracts.governance import PresetPromoted


class AdmittedPreset(msgspec.Struct, frozen=True, kw_only=True):
    """One that may be chosen."""

    preset_id: str
    params: dict[str, Any]
    origin: str
    admitted_at: datetime
    propensity: float | None  # at the last decision; None if it was not among those
    is_chosen: bool


class Sleeve(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy on one series."""

    strategy: str
    symbol: str
    timeframe: str
    presets: list[AdmittedPreset]  # the likeliest first
    decision_id: str  # "" while nothing was decided: the default trades
    decided_at: datetime | None
    epoch: int | None
    policy_version: str
    trades: int
    wins: int
    net_profit: Decimal


def sleeves(now: Now) -> list[Sleeve]:
    """Every sleeve that has an admitted preset or a decision, by name."""
    return [_sleeve(now, name) for name in sorted({*now.admitted, *now.decisions})]


def _sleeve(now: Now, name: str) -> Sleeve:
    decision = now.decisions.get(name)
    result = now.sleeve_results.get(name) or SleeveResult()
    presets = [
        _admitted(
            promoted,
            decision.propensities.get(promoted.preset_id) if decision else None,
            decision is not None and decision.preset_id == promoted.preset_id,
        )
        for promoted in now.admitted.get(name, {}).values()
    ]
    strategy, symbol, timeframe = name.split(".")
    return Sleeve(
        strategy=strategy,
        symbol=symbol,
        timeframe=timeframe,
        presets=sorted(presets, key=lambda one: (-(one.propensity or 0.0), one.preset_id)),
        decision_id=decision.decision_id if decision else "",
        decided_at=decision.decided_at if decision else None,
        epoch=decision.epoch if decision else None,
        policy_version=decision.policy_version if decision else "",
        trades=result.trades,
        wins=result.wins,
        net_profit=result.net_profit,
    )


def _admitted(promoted: PresetPromoted, propensity: float | None, is_chosen: bool) -> AdmittedPreset:
    try:
        preset = preset_from_bytes(promoted.preset, promoted.preset_id)
        params, origin = dict(preset.params), preset.origin
    except BadMessage as error:  # shown as it is: whether it may trade is the engine's to say
        params, origin = {"unreadable": str(error)}, "unreadable"
    return AdmittedPreset(
        preset_id=promoted.preset_id,
        params=params,
        origin=origin,
        admitted_at=promoted.promoted_at,
        propensity=propensity,
        is_chosen=is_chosen,
    )
