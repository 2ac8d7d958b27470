"""Runs what a manifest describes once more. Other bits are an error, never a shrug."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from services.backtest_suite.data import Bars
from services.backtest_suite.driver import Experiment, data_of
from services.backtest_suite.manifests import Data, Manifest
from services.backtest_suite.panels import Panel
from services.backtest_suite.results import Result
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.sources import Found, bars_found, strategy_named
from shared.contracts.errors import BadMessage, NeedsOperator

SAME = ("symbol", "timeframe", "sha256", "funding_sha256")


def read_manifest(file: Path) -> Manifest:
    """The manifest in a file. Raises NeedsOperator when it is not there, BadMessage when it is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except OSError as error:
        raise NeedsOperator(f"The manifest {file} cannot be read: {error}.") from error
    except msgspec.DecodeError as error:
        raise BadMessage(f"{file} must be a manifest.json of a backtest: {error}.") from error


def repeat(manifest: Manifest, store: RunStore) -> Result:
    """The same run again. Raises NeedsOperator when code or bars are others, BadMessage when the bits are."""
    experiment = experiment_of(manifest)
    result = store.run(experiment, manifest.params)
    if result.result_sha256 != manifest.result_sha256:
        ours, theirs = result.manifest.versions, manifest.versions
        changed = [f"{name} {theirs.get(name)} -> {ours.get(name)}" for name in ours if ours[name] != theirs.get(name)]
        code = "the same code" if result.fingerprint == manifest.fingerprint else "other code of fills and ledger"
        raise BadMessage(
            f"Run {manifest.run_id} had the result {manifest.result_sha256[:12]}, it is {result.result_sha256[:12]} now, by "
            f"{code}; versions: {', '.join(changed) or 'the same'}."
        )
    return result


def experiment_of(manifest: Manifest) -> Experiment:
    """What the manifest describes, from the bars and the code as they are now. Raises NeedsOperator when they differ."""
    strategy = strategy_named(manifest.strategy_file or manifest.strategy)
    if strategy.source != manifest.source_sha256:
        raise NeedsOperator(
            f"Run {manifest.run_id} was made with {manifest.strategy} {manifest.source_sha256[:12]}, its code is "
            f"{strategy.source[:12]} now. Take the code of then, or make a new run."
        )
    data = manifest.data
    told = data.members or (data,)
    readings = tuple(each.reading for each in told if each.reading is not None)
    if len(readings) < len(told):
        raise NeedsOperator(f"The bars of run {manifest.run_id} were given by a program: only that can repeat it.")
    there = {
        reading: bars_found(reading, first=data.first, last=data.last, universe=data.universe)
        for reading in dict.fromkeys(readings)
    }
    members = tuple(
        replace(_same(manifest, each, there[reading]), instrument=instrument)
        for each, reading, instrument in zip(told, readings, manifest.assumptions.instruments, strict=True)
    )
    bars = Panel(members) if data.members else members[0]
    return Experiment(strategy, bars, manifest.assumptions, readings)


def _same(manifest: Manifest, data: Data, found: list[Found]) -> Bars:
    """The very bars that the manifest names, of those that are there now."""
    for each in found:
        there = data_of(each.bars)
        if all(getattr(there, name) == getattr(data, name) for name in SAME):
            return each.bars
    names = ", ".join(f"{each.bars.symbol} {each.bars.timeframe} {each.bars.sha256[:12]}" for each in found)
    raise NeedsOperator(
        f"Run {manifest.run_id} was made on {data.symbol} {data.timeframe} {data.sha256[:12]}, there is {names}. "
        "The bars have changed, or their funding."
    )
