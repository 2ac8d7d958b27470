"""Runs parameter sets in processes of their own. One that dies or hangs costs the set it was on, and nothing else.

A pool of joblib's ends as a whole when one process dies; this one tells which set it was, and goes on.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from services.backtest_suite.data import Bars
from services.backtest_suite.driver import Experiment
from services.backtest_suite.manifests import Assumptions, Params, file_of
from services.backtest_suite.outcomes import Outcome, outcome_of
from services.backtest_suite.panels import Panel
from shared.contracts.errors import NeedsOperator, TrimtabError
from shared.trading.strategies import find_any, is_built_in, load_any

READY_S = 120.0  # a worker imports numba and compiles; on a busy machine that takes a while
LAST_BREATH_S = 5.0  # from a closed connection to an exit code
SHARE = 32  # sets handed to a worker at once, so that it does not wait for the next


@dataclass(frozen=True)
class Order:
    """An experiment in a form that another process can be given: its strategy by name, or by file."""

    strategy: str
    file: Path | None
    source: str
    bars: Bars | Panel
    assumptions: Assumptions

    @classmethod
    def of(cls, experiment: Experiment) -> Order:
        """Raises NeedsOperator for a strategy that no other process can find."""
        strategy, file = experiment.strategy, file_of(experiment.strategy)
        if file is None and not is_built_in(strategy):
            raise NeedsOperator(
                f"Strategy {strategy.name} stands in no file, so other processes cannot load it: write it into a file, "
                "or use the backend threads."
            )
        return cls(strategy.name, file, strategy.source, experiment.bars, experiment.assumptions)

    def experiment(self) -> Experiment:
        """The same over there. Raises NeedsOperator when the code has changed meanwhile."""
        strategy = find_any(self.strategy) if self.file is None else load_any(self.file)
        if strategy.source != self.source:
            raise NeedsOperator(f"Strategy {self.strategy} has changed since the grid began. Start it again.")
        return Experiment(strategy, self.bars, self.assumptions)


class _Worker:
    """One process, and the sets that it still owes."""

    def __init__(self, order: Order) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take half of our threads' locks along
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, order), daemon=True)
        self._process.start()
        theirs.close()  # so that its death ends the connection
        self.owes: deque[Params] = deque()
        self.is_ready = False
        self.due = time.monotonic() + READY_S

    def give(self, share: list[Params]) -> None:
        self.owes.extend(share)
        self.connection.send(share)

    def end(self, patience_s: float = 0.0) -> int | None:
        """Kill it, unless it ends by itself within `patience_s`. The exit code of its own, if it has one."""
        self._process.join(patience_s)
        code = self._process.exitcode
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()
        return code


def in_processes(
    experiment: Experiment, table: Sequence[Params], processes: int, timeout_s: float
) -> Iterator[Outcome]:
    """The outcome of every set of the table, as they come. `timeout_s` is the patience with one set."""
    pool = _Pool(Order.of(experiment), experiment, table, processes, timeout_s)
    try:
        yield from pool.outcomes()
    finally:
        pool.end()


class _Pool:
    def __init__(
        self, order: Order, experiment: Experiment, table: Sequence[Params], processes: int, timeout_s: float
    ) -> None:
        self._order, self._experiment, self._timeout_s = order, experiment, timeout_s
        self._waiting = deque(table)
        self._workers = [_Worker(order) for _ in range(max(1, min(processes, len(table))))]

    def outcomes(self) -> Iterator[Outcome]:
        while self._waiting or any(worker.owes for worker in self._workers):
            for worker in self._workers:
                if not worker.owes and self._waiting:
                    self._give(worker)
            busy = {worker.connection: worker for worker in self._workers if worker.owes}
            patience = max(0.0, min(worker.due for worker in busy.values()) - time.monotonic())
            for connection in wait(list(busy), patience):
                assert isinstance(connection, Connection)
                yield from self._heard(busy.pop(connection))
            for worker in busy.values():
                if time.monotonic() >= worker.due:
                    yield self._lost(worker, f"did not end within {self._timeout_s:g} s and was stopped")

    def end(self) -> None:
        for worker in self._workers:
            worker.end()

    def _give(self, worker: _Worker) -> None:
        fair = len(self._waiting) // (4 * len(self._workers))
        worker.give([self._waiting.popleft() for _ in range(max(1, min(SHARE, fair)))])
        if worker.is_ready:
            worker.due = time.monotonic() + self._timeout_s

    def _heard(self, worker: _Worker) -> Iterator[Outcome]:
        try:
            said: Outcome | TrimtabError | None = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            yield self._lost(worker, "ended its process", LAST_BREATH_S)
            return
        if isinstance(said, TrimtabError):
            raise said
        if said is None:
            worker.is_ready = True
        else:
            worker.owes.popleft()
            yield said
        worker.due = time.monotonic() + self._timeout_s

    def _lost(self, worker: _Worker, how: str, patience_s: float = 0.0) -> Outcome:
        """The set that it was on has failed; the others it owed go back, and another process takes its place."""
        code = worker.end(patience_s)
        ended = "" if code is None else f" (exit code {code})"
        if not worker.is_ready:
            raise NeedsOperator(f"A process for backtests must become ready within {READY_S:g} s, it {how}{ended}.")
        lost = worker.owes.popleft()
        self._waiting.extendleft(reversed(worker.owes))
        self._workers[self._workers.index(worker)] = _Worker(self._order)
        shown = ", ".join(f"{name}={value}" for name, value in lost.items())
        failure = f"{self._order.strategy} with {shown} {how}{ended}."
        return Outcome(fingerprint=self._experiment.fingerprint(lost), params=lost, failure=failure)


def _work(connection: Connection, order: Order) -> None:
    """What a worker does: become ready, then answer set after set, until nobody asks any more."""
    try:
        experiment = order.experiment()
        experiment.scanner.compile()
    except TrimtabError as error:
        connection.send(error)
        return
    connection.send(None)
    while True:
        try:
            share: list[Params] = connection.recv()
        except EOFError:
            return
        for params in share:
            connection.send(outcome_of(experiment, params))
