"""The whole stack, as a person starts it: real processes, a real NATS, real ccxt on the simulated venue."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from services import cli
from tests.services.launcher.test_launcher import ROOT, free_port_base

PROMISED = {
    "bars_closed", "bars_decided", "bars_missed", "bars_doubled", "gaps", "regimes", "models_promoted",
    "models_refused", "presets_promoted", "presets_refused", "decisions", "orders", "fills", "trades_closed",
    "halts", "stats", "equity_start", "equity_end", "wall_s",
}  # fmt: skip


VERBS = {
    "status": "param_controller",
    "stats": "expectancy_r",
    "trades": "exit_reason",
    "models list": "in use",
    "presets list": "backtest",
    "gov log": "candidate -> champion",
    "gov verify": "each follows from the one before",
    "pause": "trading is paused",
    "resume": "trading is active",
    "flatten": "positions are being closed",
    "halt": "trading is halted",
}


def begin(folder: Path, base: int, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", "up", "--data-dir", str(folder), "--port-base", str(base), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def played(folder: Path, *options: str) -> dict[str, Any]:
    """Play a market to its end; the JSON object on the last line."""
    process = begin(folder, free_port_base(), "--speed", "max", "--until-end", "--json", *options)
    try:
        out, errors = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(10)
    assert process.returncode == 0, errors
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def rows(folder: Path, service: str, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{folder / service}.sqlite?mode=ro", uri=True) as db:
        return db.execute(query).fetchall()


def decisions(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What was decided, in its order: which presets were chosen, and what was ordered."""
    return {
        "chosen": rows(folder, "param_controller", "select message_id from outbox where message_id like 'ParamDecision:%' order by message_id"),
        "admitted": rows(folder, "governor", "select message_id from outbox where subject like 'preset.%' order by message_id"),
        "said": rows(folder, "engine", "select message_id from outbox where subject not like 'portfolio.%' and subject not like 'alert.%' order by message_id"),
    }  # fmt: skip


@pytest.mark.timeout(400)
def test_the_simulated_market_is_played_to_its_end_and_the_same_seed_gives_the_same_decisions(tmp_path: Path) -> None:
    first, second = (played(tmp_path / name, "--bars", "150") for name in ("first", "second"))

    assert first.keys() >= PROMISED
    assert first["bars_closed"] == first["bars_decided"] == 3 * 150
    assert first["bars_missed"] == first["bars_doubled"] == first["gaps"] == 0
    assert first["models_promoted"] > 0
    assert first["presets_promoted"] > 0
    assert first["decisions"] > 0
    assert first["fills"] > 0
    assert first["unknown_paths"] == {}
    assert {k: v for k, v in first.items() if k != "wall_s"} == {k: v for k, v in second.items() if k != "wall_s"}
    assert decisions(tmp_path / "first") == decisions(tmp_path / "second")


@pytest.mark.timeout(300)
def test_recorded_bars_are_played_with_their_outages_as_gaps_and_every_refusal_names_its_rule(
    tmp_path: Path, test_data: Path
) -> None:
    told = played(
        tmp_path / "data",
        "--market",
        str(test_data / "crypto/spot_1h/BTCUSDT_1h.parquet"),
        "--from",
        "2021-04-22",
        "--to",
        "2021-05-05",
    )

    hours = 13 * 24
    assert told["gaps"] == 3  # behind 2021-04-25 04:00, by the manifest of the data
    assert told["bars_closed"] == told["bars_decided"] == hours - told["gaps"]
    assert told["bars_missed"] == told["bars_doubled"] == 0
    assert told["presets_promoted"] + told["presets_refused"] > 0
    refusals = rows(tmp_path / "data", "governor", "select count(*) from outbox where subject like 'preset.refused.%'")
    assert refusals == [(told["presets_refused"],)]


@pytest.mark.timeout(200)
def test_a_person_at_the_terminal_is_answered(tmp_path: Path) -> None:
    """Each verb of the README beside a stack that trades."""
    folder, base = tmp_path / "data", free_port_base()
    process = begin(folder, base, "--speed", "50")
    try:
        for counted in ("trades_closed", "models_promoted", "presets_promoted"):
            until(base + 2, counted, 1)
        (trade, *_) = json.loads(asked(folder, "trades", "--json"))
        told = {verb: asked(folder, *verb.split()) for verb in VERBS}
        why = asked(folder, "explain", trade["trade_id"])
        positions = json.loads(asked(folder, "positions", "--json"))
        (preset, *_) = [
            one for sleeve in json.loads(asked(folder, "presets", "list", "--json")) for one in sleeve["presets"]
        ]
        preset_id = preset["preset_id"]
        admitted = asked(folder, "presets", "show", preset_id[:8])
        demoted = asked(folder, "presets", "demote", preset_id, "--reason", "for a look")
        admitted_again = asked(folder, "presets", "promote", preset_id)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=15)
    assert {verb: told[verb] for verb, words in VERBS.items() if words not in told[verb]} == {}
    assert trade["trade_id"] in told["trades"]
    steps = (
        "wants an exposure of",
        "Buy ",
        "Accepted.",
        "Filled: buy",
        "wants out",
        "Filled: sell",
    )
    places = [why.find(step) for step in steps]
    assert -1 not in places and places == sorted(places), why
    assert all(each["preset_id"] for each in positions)
    assert preset_id in admitted and all(name in admitted for name in preset["params"])
    assert "candidate -> champion" in admitted or preset["origin"] == "default"
    assert "champion -> demoted: for a look" in demoted
    assert "demoted -> champion" in admitted_again


def asked(folder: Path, *verb: str) -> str:
    """What the terminal shows."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [*verb, "--data-dir", str(folder)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.timeout(200)
def test_ctrl_c_and_up_again_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, base = tmp_path / "data", free_port_base()
    reached = 0
    for _ in range(2):
        process = begin(folder, base, "--speed", "20")
        try:
            seen = until(base + 3, "bars_decided", reached + 60)
            compared = until(base + 2, "readings_compared", reached + 1)
        finally:
            began = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=15)
        assert time.monotonic() - began < 5.0
        assert process.returncode == 0
        assert seen["bars_doubled"] == seen["bars_missed"] == 0
        assert seen["bars_decided"] >= reached + 60
        assert compared["mismatches"] == 0  # the engine and ml_service read every bar to the same bytes
        reached = seen["bars_decided"]


def until(port: int, name: str, least: int) -> dict[str, Any]:
    """A service's status once it has counted so many of these."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):  # not there before the service is ready
            status: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/status", timeout=5).json()
            if status.get(name, -1) >= least:
                return status
        time.sleep(0.1)  # another program, asked over HTTP as a person would
    raise AssertionError(f"{name} of the service at port {port} had not come to {least} after 90 s")
