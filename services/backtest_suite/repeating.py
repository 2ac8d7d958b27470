"""Runs what a manifest describes once more. Other bits are an error, never a shrug."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from services.backtest_suite.driver import Experiment
from services.backtest_suite.manifests import Manifest
from services.backtest_suite.results import Result
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.sources import bars_found, strategy_named
from shared.contracts.errors import BadMessage, NeedsOperator


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
    if data.reading is None:
        raise NeedsOperator(f"The bars of run {manifest.run_id} were given by a program: only that can repeat it.")
    found = bars_found(data.reading, first=data.first, last=data.last, universe=data.universe)
    for each in found:
        if (each.bars.symbol, each.bars.timeframe) == (data.symbol, data.timeframe):
            bars = replace(each.bars, instrument=manifest.assumptions.instrument)
            again = Experiment(strategy, bars, manifest.assumptions, each.reading)
            if (again.data.sha256, again.data.funding_sha256) == (data.sha256, data.funding_sha256):
                return again
    names = ", ".join(f"{each.bars.symbol} {each.bars.timeframe} {each.bars.sha256[:12]}" for each in found)
    raise NeedsOperator(
        f"Run {manifest.run_id} was made on {data.symbol} {data.timeframe} {data.sha256[:12]}, there is {names}. "
        "The bars have changed, or their funding."
    )
