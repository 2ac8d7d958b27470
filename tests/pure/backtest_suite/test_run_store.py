"""The runs database: nothing is computed twice, every try is counted, and what was kept stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from services.backtest_suite.driver import Experiment
from services.backtest_suite.outcomes import Outcome, outcome_of
from services.backtest_suite.run_store import FILE, RunStore
from shared.contracts.errors import NeedsOperator
from shared.trading.compiled import Failure
from shared.trading.kernel import kernel
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat
from tests.pure.backtest_suite.markets import experiment, trends


class Params(NamedTuple):
    at: int = 5  # bars


class State(NamedTuple):
    seen: int


@kernel
def start(p: Params) -> State:
    return State(0)


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Raises at a bar."""
    if s.seen == p.at:
        raise ValueError("too much")
    return State(s.seen + 1), flat()


RAISING = strategy("raising", Params, start, step, bounds={"at": (0, 5000)}, warmup=lambda p: 0)


def outcomes(*fasts: int) -> list[Outcome]:
    made = experiment()
    return [outcome_of(made, made.strategy.params({"fast": fast})._asdict()) for fast in fasts]


def keep(store: RunStore, *fasts: int) -> None:
    made = experiment()
    store.keep(made.bars.sha256, made.strategy.name, outcomes(*fasts))


def trials(store: RunStore) -> int:
    made = experiment()
    return store.trials(made.bars.sha256, made.strategy.name)


def test_what_was_kept_is_known_to_the_bit(tmp_path: Path) -> None:
    kept = outcomes(5, 10)
    with RunStore(tmp_path) as store:
        keep(store, 5, 10)
    with RunStore(tmp_path) as store:
        known = store.known([one.fingerprint for one in kept] + ["f" * 64])
    assert known == {one.fingerprint: one for one in kept}


def test_the_same_run_twice_has_two_ids_and_is_one_trial(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        one, two = store.run(experiment()), store.run(experiment())
        assert one.fingerprint == two.fingerprint
        assert (one.run_id, two.run_id) == (f"{one.fingerprint[:12]}-1", f"{one.fingerprint[:12]}-2")
        assert (one.trials, two.trials) == (1, 1)
        assert [manifest.run_id for manifest in store.runs()] == [two.run_id, one.run_id]
        assert store.manifest(one.run_id) == one.manifest


def test_ids_stay_apart_when_many_processes_run_the_same(tmp_path: Path) -> None:
    with RunStore(tmp_path) as one, RunStore(tmp_path) as other:
        ids = [store.run(experiment()).run_id for store in (one, other, one, other)]
    assert len(set(ids)) == 4


def test_every_parameter_set_that_was_ever_tried_on_these_bars_counts_once(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        keep(store, 5, 10, 15)
        keep(store, 10, 20)
        assert trials(store) == 4
        assert store.run(experiment(), {"fast": 25}).trials == 5
        assert store.run(experiment(seed=9), {"fast": 25}).trials == 5  # other terms, the same set
        assert store.trials(trends(1100).sha256, "trend_follow") == 0
        assert store.trials(experiment().bars.sha256, "momentum") == 0


def test_a_run_that_raises_was_a_try_as_well(tmp_path: Path) -> None:
    made = Experiment.of(RAISING, trends())
    with RunStore(tmp_path) as store:
        with pytest.raises(Failure, match=r"raised ValueError at bar 5 \(2024-01-01 05:00"):
            store.run(made)
        assert store.trials(made.bars.sha256, "raising") == 1
        (known,) = store.known([made.fingerprint({"at": 5})]).values()
        assert "too much" in known.failure
        assert known.figures is None


def test_a_database_of_a_newer_program_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        store._db.execute("pragma user_version=99")
    with pytest.raises(NeedsOperator, match="newer Trimtab"):
        RunStore(tmp_path)
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(NeedsOperator, match="Move it away"):
        RunStore(tmp_path)


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        keep(store, 5, 10)
    script = f"""
        import resource, signal
        from pathlib import Path
        from services.backtest_suite.run_store import RunStore
        from shared.contracts.errors import NeedsOperator
        from tests.pure.backtest_suite.test_run_store import keep

        store = RunStore(Path({str(tmp_path)!r}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            keep(store, *range(20, 60))
        except NeedsOperator as error:
            print(error)
    """
    told = python(script)
    assert "could not be written" in told
    assert "disk full" in told
    with RunStore(tmp_path) as store:
        assert trials(store) == 2
        keep(store, 20)
        assert trials(store) == 3


def test_one_of_two_processes_is_killed_and_the_results_of_both_stay(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from services.backtest_suite.run_store import RunStore
        from tests.pure.backtest_suite.test_run_store import keep

        with RunStore(Path(sys.argv[1])) as store:
            for fast in range(int(sys.argv[2]), 100, 2):
                keep(store, fast)
                print(fast, flush=True)
    """
    commands = [[sys.executable, "-c", textwrap.dedent(script), str(tmp_path), begin] for begin in ("2", "3")]
    killed, other = (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment())
        for command in commands
    )
    assert killed.stdout is not None
    for _ in range(10):
        killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    rest, _ = other.communicate(timeout=60)
    killed.wait()
    killed.stdout.close()
    with RunStore(tmp_path) as store:
        assert len(rest.split()) == 49  # 3, 5, .. 99
        assert trials(store) >= 49 + 10


def environment() -> dict[str, Any]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


def python(script: str) -> str:
    """What a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
