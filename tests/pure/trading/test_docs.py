"""What docs/strategies.md shows is true."""

from __future__ import annotations

import re
import runpy
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from shared.trading.compiled import Run, grid
from shared.trading.strategies import BUILT_IN
from trimtab import Columns, Costs, Instrument, Terms, faults, leaks, load_strategy, scan

DOCS = Path(__file__).parents[3] / "docs" / "strategies.md"


def blocks() -> list[str]:
    """The Python in the docs."""
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_strategy_in_the_docs_is_one(tmp_path: Path) -> None:
    first, *_ = blocks()
    file = tmp_path / "trend_cross.py"
    file.write_text(first)
    mine = load_strategy(file)
    assert faults(mine) == []

    close = 100.0 + 10.0 * np.sin(np.arange(600) / 40.0)
    bars = Columns.of(np.arange(600) * 60_000, close, close, close, close, np.ones(600))
    btc = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.00001"))
    terms = Terms(btc, "1m", Costs(fee_bps=10, slippage_bps=5), Decimal(10_000))
    (told,) = grid(mine, bars, [{"fast": 10, "slow": 30}], terms)
    assert isinstance(told, Run)
    assert told.figures == scan(mine, bars, {"fast": 10, "slow": 30}, terms).figures
    assert told.figures.trades >= 2


def test_the_three_tiers_in_the_docs_run(tmp_path: Path) -> None:
    (tiers,) = (text for text in blocks() if "class Rises" in text)
    close = 100.0 + 10.0 * np.sin(np.arange(600) / 40.0)
    bars = Columns.of(np.arange(600) * 60_000, close, close, close, close, np.ones(600))
    btc = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.00001"))
    names: dict[str, Any] = {
        "bars": bars,
        "terms": Terms(btc, "1m", Costs(fee_bps=10, slippage_bps=5), Decimal(10_000)),
    }
    file = tmp_path / "tiers.py"
    file.write_text(tiers)
    names = runpy.run_path(str(file), names)
    assert names["called"].figures.trades >= 2
    assert names["vectorised"].figures.trades >= 2
    assert leaks(lambda bars: names["above_average"](bars, 50), bars, tolerance=1e-9) == []


def test_every_strategy_that_we_bring_is_told_in_the_docs() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)) >= set(BUILT_IN)


def test_every_test_that_the_page_of_hard_cases_names_is_there() -> None:
    named = re.findall(r"`(test_\w+)`", (DOCS.parent / "hard_cases.md").read_text(encoding="utf-8"))
    assert len(named) > 40
    tests = Path(__file__).parents[2]
    there = {
        name for file in tests.rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }
    assert sorted(set(named) - there) == []


def test_what_is_known_to_miscompile_is_not_used() -> None:
    folder = Path(__file__).parents[3] / "shared" / "trading"
    for file in folder.rglob("*.py"):
        code = re.sub(r"#.*", "", file.read_text(encoding="utf-8"))
        assert not re.search(r"inline\s*=|fastmath|parallel\s*=\s*True", code.replace('"forceinline"', "")), file
