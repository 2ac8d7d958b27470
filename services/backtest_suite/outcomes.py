"""What came of one parameter set of many: its figures, or why there are none."""

from __future__ import annotations

import msgspec

from services.backtest_suite.driver import Experiment
from services.backtest_suite.manifests import Params
from shared.contracts.governance import Figures
from shared.trading.compiled import Failure


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter set. `fingerprint` names all that its result depends on."""

    fingerprint: str
    params: Params
    figures: Figures | None = None
    failure: str = ""


def outcome_of(experiment: Experiment, params: Params) -> Outcome:
    """Run it. What the strategy raises is its outcome, so that the others go on."""
    fingerprint = experiment.fingerprint(params)
    try:
        run = experiment.scanner.run(params)
    except Failure as failure:
        return Outcome(fingerprint=fingerprint, params=params, failure=str(failure))
    return Outcome(fingerprint=fingerprint, params=params, figures=run.figures)
