"""How often a job is timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Rounds = Callable[[int], int]


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> Rounds:
    """So many where jobs are measured, `just bench`; in the suite one, which shows that a job runs and agrees."""
    is_measured = bool(request.config.getoption("benchmark_enable"))
    return lambda count: count if is_measured else 1
