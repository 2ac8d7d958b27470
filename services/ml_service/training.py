"""When a training is due, has it done, tells the governor, and holds progress until the governor has spoken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TypeVar

from services.ml_service.bars import Ingester
from services.ml_service.baskets import BASKET
from services.ml_service.claims import Claims, Outcome, TrainingJob
from services.ml_service.fit_lines import FitProgress
from services.ml_service.registry import KnownModel, Registry
from services.ml_service.series import Series, SeriesState, Training
from services.ml_service.settings import MlSettings
from services.ml_service.trainer import METRIC, Candidate, Order, Trainer
from shared.artifacts.models import manifest_bytes
from shared.contracts.errors import BadMessage, TryAgain
from shared.contracts.governance import ModelTrained, Stage
from shared.contracts.subjects import MODEL_TRAINED
from shared.contracts.times import from_ms, to_ms
from shared.runtime.listening import Effects
from shared.runtime.service import Host

T = TypeVar("T")

BARS_AHEAD = 1000  # how far to look for bars that are held and not told yet
PAUSE_S = (0.1, 0.5, 1.0, 2.0)  # while the ingester or the bus is away


class Trainings:
    """The trainings of all series."""

    def __init__(
        self,
        host: Host[MlSettings],
        registry: Registry,
        series: dict[str, Series],
        ingester: Ingester,
    ) -> None:
        self._host, self._registry, self._series = host, registry, series
        self._trainer, self._ingester = Trainer(host.settings, ingester), ingester
        self.claims = Claims(host, registry, self.train, self._ended)
        self._holds: dict[str, ExitStack] = {}  # series -> what keeps its progress back
        self._verdicts: dict[str, asyncio.Future[Stage]] = {}
        self._bar_came = asyncio.Event()
        for one in series.values():
            if one.state.pending:
                self._hold(one, "verdict")

    async def put_again(self) -> None:
        """Put the models that somebody needs among the artifacts once more, in case the bus has lost them."""
        for series in self._series.values():
            for model_id in {series.state.model_id, series.state.pending} - {""}:
                npz = await self._registry.npz(model_id)
                if npz is not None:
                    await self._host.bus.put_artifact(model_id, npz)

    async def go_on(self) -> None:
        """Go on with the trainings that a stop has interrupted."""

        async def work(effects: Effects) -> None:
            for job in await self.claims.unfinished():
                if job.is_due:
                    series = self._series[job.order.series]
                    series.is_training = True
                    self._hold(series, "training")
                effects.afterwards(lambda job=job: self.claims.go_on(job))

        await self._host.act(work)

    def after_bar(self, series: Series, is_history: bool, effects: Effects) -> None:
        """Begin what is due after this bar; what is due on the past waits until all of it has been told."""
        effects.afterwards(self._bar_came.set)
        due = series.due(self._host.settings)
        if due and is_history and series.key not in self._holds:
            self._hold(series, "training")
        elif due and not is_history:
            self._begin(series, due, effects)

    async def train_on_history(self) -> None:
        """Begin the first trainings once the past has been told: no bar has come for `patience_s`, and the ingester
        holds none that is still to come, as on a busy machine it may. For ever."""
        self._bar_came.set()  # the past may have been told in an earlier life
        while True:
            await self._bar_came.wait()
            while self._bar_came.is_set():
                self._bar_came.clear()
                try:
                    async with asyncio.timeout(self._host.settings.patience_s):
                        await self._bar_came.wait()
                except TimeoutError:
                    if await self._is_all_told():
                        await self._host.act(self._begin_all)

    async def _is_all_told(self) -> bool:
        for series in list(self._series.values()):
            if series.due(self._host.settings) is None or series.state.symbol == BASKET:  # told by its members
                continue
            after, until = (from_ms(series.state.last_ms + bars * series.bar_ms) for bars in (1, BARS_AHEAD))
            to_come = await self._patiently(
                series.key,
                partial(self._ingester.history, series.state.symbol, series.state.timeframe, after, until),
            )
            if len(to_come):
                return False
        return True

    async def _begin_all(self, effects: Effects) -> None:
        for series in self._series.values():
            if due := series.due(self._host.settings):
                self._begin(series, due, effects)

    def order(
        self,
        series: Series,
        *,
        is_synthetic: bool = False,
        states: tuple[int, ...] = (),
        window: int | None = None,
        last_ms: int | None = None,
        seed: int | None = None,
        tag: str = "",
    ) -> Order:
        """A training of this series on bars up to its last one, or up to `last_ms` (opened-at) of the past; by the
        settings where nothing else is said. A window of 0 is all that there are.
        """
        settings, state = self._host.settings, series.state
        return Order(
            venue=state.venue,
            symbol=state.symbol,
            timeframe=state.timeframe,
            last_ms=state.last_ms if last_ms is None else last_ms,
            states=states or settings.states,
            seed=settings.seed if seed is None else seed,
            starts=settings.starts,
            window=settings.train_bars if window is None else window,
            tag=tag,
            is_synthetic=is_synthetic,
            ordered_ms=-1 if last_ms is None else to_ms(self._host.clock.now()),
        )

    async def train(self, order: Order, promote: bool) -> KnownModel:
        """Train, keep, and tell the governor if it shall be promoted. Raises BadMessage when there is no model."""
        order = await self._going_on(order)
        candidate = await self._patiently(
            order.series, lambda: self._trainer.train(order, lambda said: self._tell_progress(order, said))
        )
        known = self._registry.known.get(candidate.model_id)
        if known is not None and (known.stage != "kept" or not promote):
            self._host.log.info("model.known", model=candidate.model_id[:12], stage=known.stage)
            return known  # the same bars and seed gave the same model: the governor has spoken, or will
        known = KnownModel(candidate.model_id, order.series, "candidate" if promote else "kept", candidate.manifest)
        await self._patiently(order.series, lambda: self._host.bus.put_artifact(candidate.model_id, candidate.npz))

        async def keep(effects: Effects) -> None:
            unread = SeriesState(venue=order.venue, symbol=order.symbol, timeframe=order.timeframe)
            series = self._series.setdefault(order.series, Series(unread))
            self._registry.keep_model(effects, known, candidate.npz)
            if promote:
                series.state.pending = candidate.model_id
                self._hold(series, "verdict")
                effects.publish(MODEL_TRAINED, _trained(order, candidate))
            self._registry.keep_state(effects, series)

        await self._host.act(keep)
        figure = f"{candidate.manifest.scores[METRIC]:.4f}"
        self._host.log.info("model.trained", series=order.series, model=known.model_id[:12], log_likelihood=figure)
        return known

    async def _going_on(self, order: Order) -> Order:
        """The same, to go on from the model in use, so that what its states mean is carried on; never from made-up bars,
        and not in a training as of the past, which the model in use may have outlived.
        """
        series = self._series.get(order.series)
        used = None if series is None else self._registry.known.get(series.state.model_id)
        if series is None or used is None or used.manifest.is_synthetic or order.is_synthetic or order.ordered_ms >= 0:
            return order
        npz = await self._registry.npz(used.model_id)
        assert npz is not None  # what is in use is kept
        return replace(order, incumbent=npz, incumbent_ms=to_ms(used.manifest.held_out.first) - series.bar_ms)

    async def verdict(self, model_id: str) -> Stage:
        """Wait for the governor's word on a candidate."""
        known = self._registry.known[model_id]
        if known.stage not in ("candidate", "kept"):
            return known.stage
        return await asyncio.shield(self._verdicts.setdefault(model_id, asyncio.get_running_loop().create_future()))

    def on_verdict(self, model_id: str, stage: Stage, effects: Effects) -> None:
        """The governor has spoken: who waits for it may go on, after the commit."""
        if model_id in self._registry.known:
            self._registry.keep_stage(effects, model_id, stage)
        if waiting := self._verdicts.pop(model_id, None):
            effects.afterwards(lambda: None if waiting.done() else waiting.set_result(stage))
        for series in self._series.values():
            if series.state.pending == model_id:
                series.state.pending = ""
                self._registry.keep_state(effects, series)
                effects.afterwards(lambda series=series: self._let_go(series))

    def _begin(self, series: Series, due: Training, effects: Effects) -> None:
        """A training is due by the market's time: progress is held until the governor has spoken on its model."""
        series.is_training = True
        self._hold(series, "training")
        order = self.order(series, is_synthetic=due == "synthetic")

        def start() -> None:
            self._host.spawn(self.claims.ask(TrainingJob(order, promote=True, is_due=True)), f"order {series.key}")

        effects.afterwards(start)

    def _ended(self, job: TrainingJob, outcome: Outcome, effects: Effects) -> None:
        """What was due is done, with or without a model: the next one is due when the settings say so."""
        if not job.is_due:
            return
        order, series = job.order, self._series[job.order.series]
        series.is_training = False
        if order.is_synthetic:
            series.state.is_bootstrapped = True
        else:
            series.state.trained_ms = order.last_ms
        self._registry.keep_state(effects, series)
        if isinstance(outcome, BadMessage):
            text = f"No new model of {order.symbol} {order.timeframe}: {outcome}"
            self._host.alert_in(effects, f"training_failed_{order.symbol}", "warning", text)
        if not series.state.pending:
            effects.afterwards(lambda: self._let_go(series))

    async def _patiently(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do it until the world is ready for it."""
        attempt = 0
        while True:
            try:
                return await work()
            except TryAgain as error:
                pause = PAUSE_S[min(attempt, len(PAUSE_S) - 1)]
                attempt += 1
                self._host.log.warning("training.retry", series=what, attempt=attempt, error=str(error))
                await asyncio.sleep(pause)

    def _tell_progress(self, order: Order, said: FitProgress) -> None:
        series, count = self._series.get(order.series), f"{said.start}/{said.of}"
        self._host.log.info("training", series=order.series, start=count, log_likelihood=said.log_likelihood)
        if series is not None and series.is_training:
            self._hold(series, f"training {count}")

    def _hold(self, series: Series, reason: str) -> None:
        """Keep progress where it is. The new reason is there before the old one goes."""
        stack = ExitStack()
        stack.enter_context(self._host.progress.hold(f"{reason} {series.state.symbol}"))
        self._let_go(series)
        self._holds[series.key] = stack

    def _let_go(self, series: Series) -> None:
        if stack := self._holds.pop(series.key, None):
            stack.close()


def _trained(order: Order, candidate: Candidate) -> ModelTrained:
    manifest = candidate.manifest
    return ModelTrained(
        model_id=candidate.model_id,
        symbol=order.symbol,
        venue=order.venue,
        timeframe=order.timeframe,
        manifest=manifest_bytes(manifest),
        trained_on=manifest.trained_on,
        metric_name=METRIC,
        metric_value=manifest.scores[METRIC],
        is_synthetic=manifest.is_synthetic,
        trained_at=manifest.trained_at,
    )
