"""What docs/strategies.md shows is true."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import numpy as np

from trimtab import Columns, Costs, Instrument, Run, Terms, faults, grid, load_strategy, scan

DOCS = Path(__file__).parents[3] / "docs" / "strategies.md"


def test_the_strategy_in_the_docs_is_one(tmp_path: Path) -> None:
    first, *_ = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
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


def test_what_is_known_to_miscompile_is_not_used() -> None:
    folder = Path(__file__).parents[3] / "shared" / "trading"
    for file in folder.rglob("*.py"):
        code = re.sub(r"#.*", "", file.read_text(encoding="utf-8"))
        assert not re.search(r"inline\s*=|fastmath|parallel\s*=\s*True", code.replace('"forceinline"', "")), file
