"""`trimtab backtest presets --send`, as a person types it beside a running stack: real processes on a real NATS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.backtest_suite.candidates import candidates_in
from tests.services.launcher.test_launcher import ROOT, free_port_base
from tests.services.stack.test_the_whole_loop import begin, rows, until

PATIENCE_S = 60.0


@pytest.mark.timeout(240)
def test_what_passed_out_of_sample_is_sent_to_the_governor_and_judged_on_bars_of_its_own(
    tmp_path: Path, test_data: Path
) -> None:
    folder, base, file = tmp_path / "data", free_port_base(), tmp_path / "candidates.json"
    market = ["--market", str(test_data / "crypto/spot_1h/BTCUSDT_1h.parquet"), "--from", "2021-04-22"]
    process = begin(folder, base, "--speed", "1", *market)
    try:
        until(base + 3, "bars_decided", 1)
        told = sent(folder, file, tmp_path / "runs")
        proposed = {one.preset_id: one for one in candidates_in(file.read_bytes())}
        verdicts = judged(folder, set(proposed))
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=15)

    assert told["sent"] is True
    assert told["passed"] == len(proposed) > 0
    assert all(one.test_figures is not None and one.test_figures.net_return > 0 for one in proposed.values())
    assert set(verdicts) == set(proposed)
    assert set(verdicts.values()) <= {"preset.promoted", "preset.refused"}
    orders = rows(folder, "governor", "select message_id from outbox where subject like 'bt.job.%'")
    assert len(orders) >= len(proposed)  # it believed nothing, and ordered its own evidence


def sent(folder: Path, file: Path, runs: Path) -> dict[str, object]:
    """The command's own words."""
    command = ["backtest", "presets", "momentum", "--symbol", "BTC-USDT", "--timeframe", "1h", "--stack", str(folder)]
    options = ["--sets", "12", "--send", "--write", str(file), "--data-dir", str(runs), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *command, *options],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


def judged(folder: Path, presets: set[str]) -> dict[str, str]:
    """The governor's word on each of these."""
    deadline, found = time.monotonic() + PATIENCE_S, dict[str, str]()
    while time.monotonic() < deadline and set(found) != presets:
        said = rows(
            folder,
            "governor",
            "select subject, message_id from outbox where subject like 'preset.promoted%' or subject like 'preset.refused%'",
        )
        found = {
            preset: ".".join(subject.split(".")[:2])
            for subject, message in said
            for preset in presets
            if preset in message
        }
        time.sleep(0.2)  # another process, whose file is looked at
    return found
