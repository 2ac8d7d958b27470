"""The engine's house, for the tests here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pure.engine.house import House, house_of


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """One strategy on one instrument, 1,000 USDT, not started yet."""
    async with house_of(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
async def house_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """Two strategies on one instrument, 1,000 USDT each."""
    async with house_of(tmp_path, monkeypatch, strategies=("above", "aloft")) as made:
        yield made
