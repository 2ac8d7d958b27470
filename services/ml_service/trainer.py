"""From bars to a candidate: fetch them, have them fitted in another process, write the manifest."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from services.ml_service.bars import History, Ingester, span_of
from services.ml_service.fit_lines import FitLine, FitProgress, FitRequest, Fitted, NotFitted
from services.ml_service.settings import MlSettings
from services.ml_service.synthetic import made_up_bars
from shared.artifacts.canonical import content_id
from shared.artifacts.models import ModelManifest, load_model
from shared.artifacts.signing import signed
from shared.contracts.errors import BadMessage, TryAgain
from shared.contracts.governance import Span
from shared.contracts.times import from_ms, timeframe_ms
from shared.regimes.hmm import RegimeModel
from shared.runtime.version import code_version

# A fit gets no more of our environment than it needs: no token, no address.
PASSED_ON = ("PATH", "HOME", "LANG", "SYSTEMROOT", "VIRTUAL_ENV")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
METRIC = "log_likelihood"


@dataclass(frozen=True)
class Order:
    """What to train, on bars up to the one that opened at `last_ms`, or of the past the last one before."""

    venue: str
    symbol: str
    timeframe: str
    last_ms: int
    states: tuple[int, ...]  # of the model; several make an ensemble
    seed: int
    starts: int
    window: int  # the newest so many bars; 0: all that there are, so that the window expands
    tag: str = ""
    is_synthetic: bool = False
    incumbent: bytes = b""  # npz of the model that it goes on from
    incumbent_ms: int = -1  # opened-at of the last bar that one was fitted on
    ordered_ms: int = -1  # venue time at which somebody asked for a training as of the past; -1: as of now

    @property
    def series(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.timeframe}"

    @property
    def job_id(self) -> str:
        """The same order is the same job."""
        kind = "synthetic" if self.is_synthetic else str(self.window or "expanding")
        states = "_".join(map(str, self.states))
        return f"train-{self.series}-{self.last_ms}-{kind}-{states}-{self.seed}".replace(".", "-")


@dataclass(frozen=True)
class Candidate:
    """A model that was fitted, as bytes and as itself."""

    model_id: str
    npz: bytes
    model: RegimeModel
    manifest: ModelManifest


class Trainer:
    """One fit at a time: the cores belong to those who trade."""

    def __init__(self, settings: MlSettings, ingester: Ingester) -> None:
        self._settings, self._ingester = settings, ingester
        self._turn = asyncio.Lock()

    async def train(self, order: Order, tell: Callable[[FitProgress], None]) -> Candidate:
        """The candidate of this order. Raises BadMessage when none can be made, TryAgain when the ingester is away.

        The newest bars stay unseen: on them the governor judges.
        """
        async with self._turn:
            bars = await self._bars(order)
            unseen = 0 if order.is_synthetic else int(len(bars) * self._settings.governor_share)
            seen = bars.part(0, len(bars) - unseen)
            held_out = int(len(seen) * self._settings.validation_share)
            chunks = await self._chunks(seen, order)
            fitted_last_ms = seen.opened_at_ms[-held_out - 1]
            request = FitRequest(
                bars=seen.bars,
                validation_bars=held_out,
                states=order.states,
                starts=order.starts,
                seed=order.seed,
                incumbent=order.incumbent,
                news=(fitted_last_ms - order.incumbent_ms) // timeframe_ms(order.timeframe) if order.incumbent else 0,
            )
            fitted = await run_fit(request, self._settings.fit_timeout_s, tell)
        model_id = content_id(fitted.model)
        model = load_model(fitted.model, model_id)
        manifest = ModelManifest(
            model_id=model_id,
            venue=order.venue,
            symbol=order.symbol,
            timeframe=order.timeframe,
            feature_schema=model.feature_schema,
            labels=model.labels,
            how=fitted.how,
            trained_on=span_of(seen),
            held_out=span_of(seen.part(len(seen) - held_out, len(seen))),
            scores=fitted.scores,
            seed=order.seed,
            starts=order.starts,
            tag=order.tag,
            is_synthetic=order.is_synthetic,
            code_version=code_version(),
            trained_at=_closed_at(order),
            chunks=chunks,
            window="sliding" if order.window else "expanding",
            matched_to=content_id(order.incumbent) if order.incumbent else "",
            agreement=fitted.scores.get("agreement"),
        )
        return Candidate(model_id, fitted.model, model, signed(manifest, self._settings.signing_key))

    async def _bars(self, order: Order) -> History:
        length = timeframe_ms(order.timeframe)
        first_ms = max(order.last_ms - (order.window - 1) * length, 0) if order.window else 0
        bars = await self._ingester.history(order.symbol, order.timeframe, from_ms(first_ms), from_ms(order.last_ms))
        if order.ordered_ms < 0 and (not len(bars) or bars.opened_at_ms[-1] != order.last_ms):
            raise TryAgain(f"The ingester does not hold the bar of {from_ms(order.last_ms)} of {order.symbol} yet.")
        if order.is_synthetic:
            # As if they had been before the first real bar, so that every real one is unseen.
            made = made_up_bars(self._settings.train_bars, order.seed, bars.bars)
            start = bars.opened_at_ms[0] - len(made) * length
            return History([start + i * length for i in range(len(made))], made)
        if len(bars) < self._settings.min_train_bars:
            raise BadMessage(
                f"A training of {order.symbol} needs {self._settings.min_train_bars} bars, there are {len(bars)}."
            )
        return bars

    async def _chunks(self, seen: History, order: Order) -> tuple[Span, ...]:
        """The stored parts that hold what the training read; none of made-up bars."""
        if order.is_synthetic:
            return ()
        first, last = from_ms(seen.opened_at_ms[0]), from_ms(seen.opened_at_ms[-1])
        return await self._ingester.chunks(order.symbol, order.timeframe, first, last)


async def run_fit(request: FitRequest, timeout_s: float, tell: Callable[[FitProgress], None]) -> Fitted:
    """Fit in a process of its own, which ends with this call. Raises BadMessage with the reason when it does not fit."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.ml_service.fitting",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        limit=4 * 1024 * 1024,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    complaints = asyncio.ensure_future(process.stderr.read())
    answer: Fitted | NotFitted | None = None
    try:
        async with asyncio.timeout(timeout_s):
            process.stdin.write(msgspec.msgpack.encode(request))
            process.stdin.write_eof()
            async for line in process.stdout:
                said = msgspec.json.decode(line, type=FitLine)
                if isinstance(said, FitProgress):
                    tell(said)
                else:
                    answer = said
            await process.wait()
    except TimeoutError as error:
        raise BadMessage(
            f"The fit took more than {timeout_s:g} s: train on fewer bars or with fewer states."
        ) from error
    except ConnectionError as error:
        raise TryAgain(f"The fit's process ended before it had read its bars: {error!r}.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        said_last = (await complaints).decode(errors="replace").strip()[-500:]
    if isinstance(answer, NotFitted):
        raise BadMessage(answer.reason)
    if answer is None:
        raise BadMessage(f"The fit's process ended with {process.returncode} and without an answer: {said_last}")
    return answer


def _closed_at(order: Order) -> datetime:
    """When it was trained, in venue time: with bars of the past, when it was asked for all the same."""
    return from_ms(max(order.last_ms + timeframe_ms(order.timeframe), order.ordered_ms))
