"""Answers the governor's evidence jobs: how a model does on a span that the governor chose."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import msgspec

from services.ml_service.bars import Ingester, cut, span_of
from services.ml_service.evidence import judge
from services.ml_service.registry import Registry
from services.ml_service.series import Series
from shared.contracts.errors import BadMessage
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered, no_evidence
from shared.contracts.times import timeframe_length, to_ms
from shared.regimes.features import LONG, features_of
from shared.regimes.hmm import RegimeModel

REFERENCE_BARS = 2000  # before the span: there the filter settles, and what one Gaussian knows is learned

ModelById = Callable[[str], Awaitable[RegimeModel]]


class EvidenceDesk:
    """Judges models on bars that the ingester holds."""

    def __init__(self, registry: Registry, ingester: Ingester, model: ModelById) -> None:
        self._registry, self._ingester, self._model = registry, ingester, model

    async def answer(self, job: EvidenceOrdered, series: Series) -> EvidenceGiven:
        """The figures, or why there are none: nothing is made up. Raises TryAgain while the ingester is away."""
        try:
            return await self._judge(job, series)
        except BadMessage as error:
            return no_evidence(job, str(error))

    async def _judge(self, job: EvidenceOrdered, series: Series) -> EvidenceGiven:
        model = await self._model(job.subject_id)
        incumbent = series.reader.model if series.state.model_id != job.subject_id else None
        length = timeframe_length(job.timeframe)
        bars = await self._ingester.history(job.symbol, job.timeframe, job.first - REFERENCE_BARS * length, job.last)
        judged = cut(bars, to_ms(job.first), to_ms(job.last))
        if not len(judged):
            raise BadMessage(f"There are no bars of {job.symbol} from {job.first} to {job.last}.")
        rows = features_of(bars.bars)
        split = len(rows) - len(judged)
        before, held_out = ([row for row in part if row is not None] for part in (rows[:split], rows[split:]))
        if len(held_out) < LONG:
            raise BadMessage(f"Evidence needs {LONG} bars with features, {job.symbol} has {len(held_out)} there.")
        metrics = await asyncio.to_thread(judge, model, incumbent, before, held_out)
        if not all(map(math.isfinite, metrics.values())):
            raise BadMessage(f"The figures of model {job.subject_id[:12]} are not finite: {metrics}")
        return msgspec.structs.replace(
            no_evidence(job, failure=""),
            span=span_of(judged),
            metrics=metrics,
            trials=sum(known.series == series.key for known in self._registry.known.values()),
        )
