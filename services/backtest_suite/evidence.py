"""Evidence on a preset, on the span that the governor chose: the same run twice, once with doubled slippage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from services.backtest_suite.bars import span_of, terms_for
from shared.artifacts.presets import preset_from_bytes
from shared.contracts.errors import BadMessage
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.times import timeframe_length, to_ms
from shared.trading.columns import Columns
from shared.trading.compiled import Failure, scan
from shared.trading.strategy import BadParams, Strategy

WARMUPS = 3  # lengths of the warm-up before the span: averages that never forget have forgotten enough by then


def strategy_of(order: EvidenceOrdered, strategies: Mapping[str, Strategy]) -> tuple[Strategy, Any]:
    """The strategy and the checked parameters that are to be judged. Raises BadMessage when they are not ours."""
    preset = preset_from_bytes(order.preset, order.subject_id)
    strategy = strategies.get(preset.strategy)
    if strategy is None:
        raise BadMessage(f"Expected a strategy among {', '.join(sorted(strategies))}, was {preset.strategy!r}.")
    if strategy.source != preset.source_hash:
        raise BadMessage(
            f"Strategy {strategy.name} is {strategy.source[:12]} here, the preset was made for {preset.source_hash[:12]}."
        )
    try:
        return strategy, strategy.params(preset.params)
    except BadParams as error:
        raise BadMessage(str(error)) from error


def first_needed(order: EvidenceOrdered, strategy: Strategy, params: Any) -> datetime:
    """From where on bars are needed, so that the strategy is warm when the span begins."""
    return order.first - WARMUPS * strategy.warmup(params) * timeframe_length(order.timeframe)


def evidence(order: EvidenceOrdered, strategy: Strategy, params: Any, bars: Columns, trials: int) -> EvidenceGiven:
    """What the preset earns on the bars within the span. `bars` begin earlier, for the warm-up."""
    judged = bars.between(to_ms(order.first), to_ms(order.last))
    if not len(judged):
        raise BadMessage(f"There are no bars of {order.symbol} from {order.first} to {order.last}.")
    known = bars.between(0, to_ms(order.last))
    trade_from = len(known) - len(judged)
    doubled = msgspec.structs.replace(order.costs, slippage_bps=2 * order.costs.slippage_bps)
    try:
        figures, stressed = (
            scan(
                strategy,
                known,
                params,
                terms_for(order.symbol, order.timeframe, known, costs),
                trade_from=trade_from,
            ).figures
            for costs in (order.costs, doubled)
        )
    except Failure as error:
        raise BadMessage(str(error)) from error
    return EvidenceGiven(
        job_id=order.job_id,
        worker="backtest_suite",
        subject_id=order.subject_id,
        span=span_of(judged),
        figures=figures,
        stressed=stressed,
        metrics={},
        trials=trials,
        failure="",
        given_at=order.ordered_at,
    )
