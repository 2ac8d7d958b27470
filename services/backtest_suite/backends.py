"""Where the parameter sets of a grid are computed: threads, processes, or a cluster. The outcomes are the same.

threads     one process; the compiled loop holds no lock. The default, and the fastest on one machine
processes   for code that may crash or hang: it costs the set it was on
dask, ray   a cluster, by joblib's backends
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

from services.backtest_suite.driver import Experiment
from services.backtest_suite.manifests import Params
from services.backtest_suite.outcomes import Outcome, outcome_of
from services.backtest_suite.workers import Order, in_processes
from shared.contracts.errors import NeedsOperator
from shared.trading.compiled import Failure

Backend = Literal["threads", "processes", "dask", "ray"]
BACKENDS: tuple[str, ...] = get_args(Backend)
TOGETHER_S = 1.0  # of work between two looks: what is done is kept that often, and no more is lost by a kill
CLUSTER_SHARE = 64  # sets in one task of a cluster
CLUSTER_ROUND = 8  # tasks a worker has in one round; after each round what is done is kept


def outcomes(
    experiment: Experiment, table: Sequence[Params], backend: Backend, workers: int | None, timeout_s: float
) -> Iterator[list[Outcome]]:
    """The outcome of every set of the table, some at a time, in any order."""
    cores = workers or os.cpu_count() or 1
    if backend == "threads":
        yield from _in_threads(experiment, table, cores)
    elif backend == "processes":
        yield from _gathered(in_processes(experiment, table, cores, timeout_s))
    else:
        with _cluster(backend, cores):
            yield from _on_cluster(Order.of(experiment), table, cores)


def _in_threads(experiment: Experiment, table: Sequence[Params], threads: int) -> Iterator[list[Outcome]]:
    """In portions that take about `TOGETHER_S`."""
    size, done = 4 * threads, 0
    while done < len(table):
        portion = table[done : done + size]
        begun = time.perf_counter()
        results = experiment.scanner.runs(portion, threads)
        yield [
            Outcome(fingerprint=experiment.fingerprint(params), params=params, failure=str(result))
            if isinstance(result, Failure)
            else Outcome(fingerprint=experiment.fingerprint(params), params=params, figures=result.figures)
            for params, result in zip(portion, results, strict=True)
        ]
        done += len(portion)
        took = time.perf_counter() - begun
        size = max(threads, min(8 * size, int(size * TOGETHER_S / max(took, 1e-3))))


def _gathered(stream: Iterator[Outcome]) -> Iterator[list[Outcome]]:
    """What comes within `TOGETHER_S` in one list."""
    held: list[Outcome] = []
    since = time.perf_counter()
    for outcome in stream:
        held.append(outcome)
        if time.perf_counter() - since >= TOGETHER_S:
            yield held
            held, since = [], time.perf_counter()
    if held:
        yield held


def _on_cluster(order: Order, table: Sequence[Params], workers: int) -> Iterator[list[Outcome]]:
    import joblib

    size = workers * CLUSTER_ROUND * CLUSTER_SHARE
    for start in range(0, len(table), size):
        portion = table[start : start + size]
        shares = [portion[i : i + CLUSTER_SHARE] for i in range(0, len(portion), CLUSTER_SHARE)]
        tasks = [joblib.delayed(_share)(order, share) for share in shares]
        answers: Any = joblib.Parallel(n_jobs=workers)(tasks)
        yield [outcome for answer in answers for outcome in answer]


def _share(order: Order, share: list[Params]) -> list[Outcome]:
    experiment = order.experiment()
    return [outcome_of(experiment, params) for params in share]


@contextmanager
def _cluster(backend: str, workers: int) -> Iterator[None]:
    """joblib told to use this backend. `DASK_SCHEDULER_ADDRESS` and `RAY_ADDRESS` name a cluster, else one is made here."""
    with ExitStack() as stack:
        if backend == "dask":
            address = os.environ.get("DASK_SCHEDULER_ADDRESS")
            stack.enter_context(_library("distributed", "dask[distributed]").Client(address, set_as_default=True))
        elif backend == "ray":
            _library("ray.util.joblib", "ray").register_ray()
        import joblib

        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=workers))
        yield


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NeedsOperator(
            f"The backend {package.split('[')[0]} needs a library that is not installed here: "
            f"`pip install '{package}'`, or use the backends threads or processes."
        ) from error
