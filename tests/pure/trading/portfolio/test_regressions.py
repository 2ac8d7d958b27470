"""On real data the strategies over many instruments do today what they did when they were last looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pure.trading.portfolio.regressions import GOLDEN, RUNS, told


@pytest.mark.parametrize("name", RUNS)
def test_a_golden_run_is_as_it_was_kept(name: str, test_data: Path) -> None:
    kept = json.loads(GOLDEN.read_text())
    assert told(RUNS[name](test_data)) == kept[name], (
        "look at it with python -m tests.pure.trading.portfolio.regressions"
    )
