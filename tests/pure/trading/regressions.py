"""What every strategy does on real and on simulated bars, to the last unit. Run it to renew the file: `just regressions`.

It shows each figure that has changed, old -> new, before it writes. Real bars lie in the folder TRIMTAB_TEST_DATA.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path

import msgspec

from services.backtest_suite.data import read_bars
from services.venue_sim.market import SimulatedSeries
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns
from shared.trading.compiled import Terms, scan
from shared.trading.strategies import BUILT_IN

FILE = Path(__file__).parent / "regressions.json"
COSTS = Costs(fee_bps=10, slippage_bps=5)
CASH = Decimal(10_000)
SIMULATED_BARS = 20_000
BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.00001"))

Figure = float | str
Told = dict[str, Figure]


def simulated() -> tuple[Columns, str]:
    """The simulated market that `trimtab up` plays."""
    series = SimulatedSeries("BTC-USDT", seed=7)
    return Columns.of(*zip(*map(series.candle, range(SIMULATED_BARS)), strict=True)), "1m"


def recorded(name: str) -> tuple[Columns, str]:
    """Real bars of the test data's folder."""
    (bars,) = read_bars(Path(os.environ["TRIMTAB_TEST_DATA"]) / "crypto" / name)
    return bars.columns, bars.timeframe


MARKETS: dict[str, Callable[[], tuple[Columns, str]]] = {
    "simulated 1m": cache(simulated),
    "BTC 1h": cache(lambda: recorded("spot_1h/BTCUSDT_1h.parquet")),
    "BTC 1d": cache(lambda: recorded("spot_1d/BTCUSDT_1d.parquet")),
}
RUNS = [f"{strategy} on {market}" for strategy in BUILT_IN for market in MARKETS]


def told(run: str) -> Told:
    """The figures of one run, the cash it ends with, and a hash over each of its fills."""
    strategy, _, market = run.partition(" on ")
    columns, timeframe = MARKETS[market]()
    made = scan(BUILT_IN[strategy], columns, {}, Terms(BTC, timeframe, COSTS, CASH), with_fills=True)
    assert made.fills is not None
    return {
        "data": columns.sha256()[:16],
        **msgspec.to_builtins(made.figures),
        "cash": str(Decimal(made.sleeve.book.cash).scaleb(-8)),
        "fills": float(len(made.fills)),
        "fills_sha256": hashlib.sha256(made.fills[:, :4].astype("<i8").tobytes()).hexdigest()[
            :16
        ],  # bar lots ticks fee
    }


def kept() -> dict[str, Told]:
    """The runs as they were when the file was written."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def changes(old: dict[str, Told], new: dict[str, Told]) -> Iterator[str]:
    """Each figure that is another, old -> new, in a line."""
    for run in sorted({*old, *new}):
        before, after = old.get(run, {}), new.get(run, {})
        for figure in [*before, *(name for name in after if name not in before)]:
            was, now = before.get(figure, "none"), after.get(figure, "none")
            if repr(was) != repr(now):  # NaN stays NaN
                yield f"{run:36} {figure:14} {was} -> {now}"


def main() -> int:
    if not os.environ.get("TRIMTAB_TEST_DATA"):
        print("Name the folder of real market data in TRIMTAB_TEST_DATA: half of the runs are on it.", file=sys.stderr)
        return 1
    new = {run: told(run) for run in RUNS}
    lines = list(changes(kept(), new))
    print("\n".join(lines) or "Nothing has changed.")
    if lines:
        FILE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
        print(f"Wrote {FILE.name}: look at each line before you commit it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
