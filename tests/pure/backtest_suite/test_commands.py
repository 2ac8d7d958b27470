"""`trimtab backtest`, as people type it, on real bars: what it says, what it leaves, and how it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pyarrow as pa
import pyarrow.feather
import pytest
from typer.testing import CliRunner

from services.backtest_suite.candidates import candidates_in
from services.backtest_suite.commands import app
from services.backtest_suite.data import Bars
from services.backtest_suite.manifests import Manifest
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.runtime.settings import PORTS
from tests.pure.backtest_suite.markets import experiment, trends, two_that_go_together
from tests.pure.backtest_suite.test_run_store import environment

RUN = ["run", "trend_follow", "--from", "2022-01-01", "--to", "2022-06-30"]


@pytest.fixture
def hourly(test_data: Path) -> list[str]:
    return ["--data", str(test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet")]


def said(arguments: list[str], folder: Path, exit_code: int = 0) -> str:
    done = CliRunner().invoke(app, [*arguments, "--data-dir", str(folder / "var")], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == exit_code, done.output
    return done.output


def json_of(arguments: list[str], folder: Path) -> dict[str, Any]:
    return json.loads(said([*arguments, "--json"], folder).splitlines()[-1])


def test_a_run_says_its_figures_as_one_json_object(hourly: list[str], tmp_path: Path) -> None:
    told = json_of([*RUN, *hourly, "--params", "fast=10,slow=50", "--fee-bps", "0", "--slippage-bps", "0"], tmp_path)
    assert {"run_id", "metrics", "trades", "orders", "fees", "equity_final", "bars", "elapsed_s"} <= set(told)
    assert (told["bars"], told["fees"]) == (4321, 0.0)  # 181 days less the last day's 23 hours
    assert told["trades"] > 10
    assert told["equity_final"] == pytest.approx(10_000 * (1 + told["metrics"]["total_return"]))
    dear = json_of([*RUN, *hourly, "--params", "fast=10,slow=50", "--fee-bps", "50"], tmp_path)
    assert dear["equity_final"] < told["equity_final"]


def test_a_run_is_repeated_from_its_manifest_to_the_same_bits(hourly: list[str], tmp_path: Path) -> None:
    first = said([*RUN, *hourly, "--lot", "0.001", "--output-dir", str(tmp_path / "out")], tmp_path)
    assert "universe unknown" in first
    manifest = tmp_path / "out" / "manifest.json"
    said(["run", "--from-manifest", str(manifest), "--output-dir", str(tmp_path / "again")], tmp_path)
    one, two = (
        msgspec.json.decode((tmp_path / name / "manifest.json").read_bytes(), type=Manifest)
        for name in ("out", "again")
    )
    assert one.run_id.endswith("-1")
    assert two.run_id.endswith("-2")
    assert msgspec.structs.replace(two, run_id=one.run_id) == one
    for file in ("trades.csv", "equity.parquet"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_manifest_whose_bits_code_or_bars_have_changed_is_refused(hourly: list[str], tmp_path: Path) -> None:
    said([*RUN, *hourly, "--output-dir", str(tmp_path)], tmp_path)
    manifest = msgspec.json.decode((tmp_path / "manifest.json").read_bytes(), type=Manifest)

    def repeated(**changes: Any) -> None:
        file = tmp_path / "changed.json"
        file.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **changes)))
        said(["run", "--from-manifest", str(file)], tmp_path)

    with pytest.raises(BadMessage, match="had the result 000000000000"):
        repeated(result_sha256="0" * 64)
    with pytest.raises(NeedsOperator, match="its code is"):
        repeated(source_sha256="0" * 64)
    with pytest.raises(NeedsOperator, match="The bars have changed"):
        repeated(data=msgspec.structs.replace(manifest.data, sha256="0" * 64))


def test_a_grid_finds_computes_once_and_writes_its_map(hourly: list[str], tmp_path: Path) -> None:
    asked = ["grid", *RUN[1:], *hourly, "--grid", "fast=5:20:5", "--grid", "slow=20,50,100"]
    told = json_of([*asked, "--workers", "2"], tmp_path)
    assert (told["combinations"], told["rule_broken"], told["failed"]) == (11, 1, 0)
    assert told["bar_evaluations"] == 11 * 4321
    assert told["best"][0]["metrics"]["sharpe"] == max(one["metrics"]["sharpe"] for one in told["best"])
    assert json_of(asked, tmp_path)["computed"] == 0
    shown = said([*asked, "--output-dir", str(tmp_path / "grid")], tmp_path)
    assert "sharpe over fast (down) and slow (across" in shown
    assert "Trials on these bars 11" in shown
    assert (tmp_path / "grid" / "report.html").exists()


def test_a_walk_forward_tells_what_was_never_tuned_on_and_what_training_had_promised(
    hourly: list[str], tmp_path: Path
) -> None:
    asked = ["walk-forward", *RUN[1:], *hourly, "--train", "60d", "--test", "30d", "--embargo", "24"]
    told = json_of([*asked, "--grid", "fast=10,20", "--grid", "slow=50,100"], tmp_path)
    assert len(told["windows"]) == 3  # 180 days and an hour: 60 + 1 + 3 x 30, and 29 days are left
    assert told["unused_bars"] == 29 * 24 + 1
    assert (told["sets"], told["trials"], told["out_of_sample"]["significance"]["trials"]) == (4, 4, 4)
    assert told["windows"][0]["test"] == {"from": "2022-03-03T00:00:00Z", "to": "2022-04-01T23:00:00Z", "bars": 720}
    promised = [window["in_sample"]["sharpe"] for window in told["windows"]]
    assert told["in_sample"]["sharpe"] == pytest.approx(sum(promised) / 3)
    assert told["out_of_sample"]["metrics"]["sharpe"] < told["in_sample"]["sharpe"]
    shown = said([*asked, "--anchored", "--sets", "5", "--output-dir", str(tmp_path / "walk")], tmp_path)
    assert "anchored, 24 bars of embargo" in shown.replace("\n", " ")
    assert "Out of sample" in shown
    page = (tmp_path / "walk" / "report.html").read_text()
    assert "Equity out of sample" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert len((tmp_path / "walk" / "windows.csv").read_text().splitlines()) == 4
    with pytest.raises(NeedsOperator, match=r"it needs 260 .*a warm-up of 200 and 30 for each of 2 parameters"):
        short = ["--train", "10d", "--test", "30d", "--grid", "fast=10", "--grid", "slow=200"]
        said([*asked[:-6], *short], tmp_path)
    assert "Expected a length such as 365d" in said([*asked[:-6], "--train", "1y", "--test", "1d"], tmp_path, 2)


def test_presets_of_two_horizons_are_written_for_the_governor(hourly: list[str], tmp_path: Path) -> None:
    asked = ["presets", "momentum", *hourly, "--from", "2023-01-01", "--to", "2024-06-30", "--sets", "12"]
    file = tmp_path / "candidates.json"
    told = json_of([*asked, "--timeframes", "1h,4h", "--write", str(file)], tmp_path)
    assert {one["timeframe"] for one in told["tried"]} == {"1h", "4h"}
    found = candidates_in(file.read_bytes())
    assert len(found) == told["passed"] > 0
    assert {one.trials for one in found} == {told["trials"]} == {24}
    assert all(one.test_figures is not None and one.test_figures.net_return > 0 for one in found)
    assert "may be proposed, each the best of 24 trials" in said([*asked, "--timeframes", "1h,4h"], tmp_path)
    with pytest.raises(NeedsOperator, match="Nothing runs on the data folder"):
        said([*asked, "--send", "--stack", str(tmp_path)], tmp_path)


DEAR = [
    "--fee-tiers",
    "1000=60",
    "--min-fee",
    "3",
    "--spread-bps",
    "4",
    "--slippage-model",
    "crypto,noise=0.5",
    "--seed",
    "3",
]
VERBS: dict[str, tuple[list[str], Callable[[dict[str, Any]], float]]] = {
    "run": ([], lambda told: told["fees"]),
    "grid": (["--grid", "fast=10"], lambda told: told["best"][0]["metrics"]["fees"]),
    "walk-forward": (
        ["--train", "60d", "--test", "30d", "--grid", "fast=10"],
        lambda told: told["out_of_sample"]["fees"],
    ),
    "presets": (["--grid", "fast=10"], lambda told: told["tried"][0]["out_of_sample"]["fees"]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_charges_what_it_is_told_to(verb: str, hourly: list[str], tmp_path: Path) -> None:
    options, fees_of = VERBS[verb]
    asked = [verb, *RUN[1:], *hourly, *options]
    cheap, dear = (fees_of(json_of([*asked, *costs], tmp_path)) for costs in (["--fee-bps", "1"], DEAR))
    assert dear > 5 * cheap > 0


def test_a_perpetual_pays_its_funding(hourly: list[str], tmp_path: Path, test_data: Path) -> None:
    perpetual = [*RUN, *hourly, "--symbol", "BTC-USDT-PERP"]
    funding = ["--funding", str(test_data / "crypto" / "funding_8h" / "BTCUSDT_funding.parquet")]
    without, told = json_of(perpetual, tmp_path), json_of([*perpetual, *funding], tmp_path)
    assert told["equity_final"] != without["equity_final"]
    assert told["trades"] == without["trades"]
    assert "6,362 fundings" in said([*perpetual, *funding], tmp_path).replace("\n", " ")
    with pytest.raises(NeedsOperator, match="Only perpetuals have funding, BTC-USDT is spot"):
        said([*RUN, *hourly, *funding], tmp_path)
    assert "A slippage model is crypto" in said([*RUN, *hourly, "--slippage-model", "cripto"], tmp_path, exit_code=2)


def test_a_strategy_of_ones_own_is_named_by_its_file(hourly: list[str], tmp_path: Path) -> None:
    from services.answers import STRATEGY_TEXT

    file = tmp_path / "mine.py"
    file.write_text(STRATEGY_TEXT.format(name="mine", title="Mine"))
    told = json_of(["run", str(file), *RUN[2:], *hourly, "--params", "fast=10"], tmp_path)
    assert told["trades"] > 0


def test_what_is_wrong_is_said_with_what_is_right(hourly: list[str], tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator, match="Did you mean 'trend_follow'"):
        said(["run", "trend_folow", *hourly], tmp_path)
    with pytest.raises(NeedsOperator, match="did you mean 'fast'"):
        said([*RUN, *hourly, "--params", "fasst=3"], tmp_path)
    with pytest.raises(NeedsOperator, match="did you mean 'slow'"):
        said(["grid", *RUN[1:], *hourly, "--grid", "slo=3:9:1"], tmp_path)
    with pytest.raises(NeedsOperator, match="no such file"):
        said([*RUN, "--data", str(tmp_path / "gone.parquet")], tmp_path)
    with pytest.raises(NeedsOperator, match="--data FILE_OR_DIR, or --symbol and --timeframe"):
        said(["run", "momentum"], tmp_path)
    with pytest.raises(NeedsOperator, match="no strategy file"):
        said(["run", str(tmp_path / "gone.py"), *hourly], tmp_path)
    with pytest.raises(NeedsOperator, match="Nothing runs on the data folder"):
        said(["run", "momentum", "--symbol", "BTC-USDT", "--timeframe", "1h", "--stack", str(tmp_path)], tmp_path)
    assert "2022-01-31" in said([*RUN[:2], *hourly, "--from", "yesterday"], tmp_path, exit_code=2)
    assert "Expected a number" in said([*RUN, *hourly, "--cash", "much"], tmp_path, exit_code=2)
    assert "Name a STRATEGY" in said(["run", *hourly], tmp_path, exit_code=2)


@contextmanager
def running_stack(folder: Path, held: Mapping[str, Bars]) -> Iterator[None]:
    """The data folder of a stack whose ingester holds these bars, by symbol, and answers over a real socket."""

    class Ingester(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (symbol,) = parse_qs(urlsplit(self.path).query)["symbol"]
            columns = held[symbol].columns.all()
            names = ("timestamp", "open", "high", "low", "close", "volume")
            out = io.BytesIO()
            pyarrow.feather.write_feather(
                pa.table(dict(zip(names, columns, strict=True))), out, compression="uncompressed"
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(out.getvalue())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Ingester) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            stack = {"port_base": server.server_port - PORTS["ingester"]}
            (folder / "running.json").write_text(json.dumps(stack))
            yield
        finally:
            server.shutdown()
            thread.join()


def test_bars_come_from_the_ingester_of_a_running_stack(tmp_path: Path) -> None:
    of_the_stack = ["--timeframe", "1h", "--stack", str(tmp_path)]
    with running_stack(tmp_path, {"BTC-USDT": trends(600)}):
        told = json_of(["run", "trend_follow", "--symbol", "BTC-USDT", *of_the_stack], tmp_path)
    assert told["bars"] == 600
    assert told["metrics"]["sharpe"] == pytest.approx(experiment(bars=trends(600)).run().metrics.sharpe, rel=1e-3)


def test_a_portfolio_takes_the_instruments_of_a_stack_that_are_joined(tmp_path: Path) -> None:
    panel = two_that_go_together()
    joined = [
        "--symbol",
        "+".join(each.symbol for each in panel.members),
        "--timeframe",
        "1h",
        "--stack",
        str(tmp_path),
    ]
    with running_stack(tmp_path, {each.symbol: each for each in panel.members}):
        told = json_of(["run", "pairs", *joined, "--params", "bars=60,enter=1.5"], tmp_path)
        each_alone = json_of(["run", "momentum", *joined], tmp_path)
        with pytest.raises(BadMessage, match="each instrument once"):
            said(["run", "pairs", *joined, "--symbol", "BTC-USDT+BTC-USDT"], tmp_path)
    assert [leg["symbol"] for leg in told["instruments"]] == ["ETH-USDT-PERP", "BTC-USDT-PERP"]
    assert told["trades"] > 20
    assert len(each_alone["runs"]) == 2


def test_the_command_ends_with_the_code_that_it_documents(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "backtest", "run", "trend_folow", "--data", "nowhere"],
        check=False,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78
    assert done.stderr.startswith("trimtab: A strategy must be one of")
    assert "Traceback" not in done.stderr


BREAKS = (
    "from typing import NamedTuple\n"
    "from trimtab import Bar, Regime, Target, flat, kernel, strategy\n"
    "class Params(NamedTuple):\n    at: int = 100\n"
    "class State(NamedTuple):\n    seen: int\n"
    "@kernel\ndef start(p: Params) -> State:\n    return State(0)\n"
    "@kernel\ndef step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:\n"
    "    x = 1 // (p.at - s.seen)\n"
    "    return State(s.seen + 1 + 0 * x), flat()\n"
    "STRATEGY = strategy('breaks', Params, start, step, bounds={'at': (0, 10000)}, warmup=lambda p: 0)\n"
)


def test_a_strategy_that_raises_is_one_clear_line_with_the_bar(hourly: list[str], tmp_path: Path) -> None:
    file = tmp_path / "breaks.py"
    file.write_text(BREAKS)
    told = said(["run", str(file), *RUN[2:], *hourly], tmp_path, exit_code=1)
    assert "raised ZeroDivisionError at bar 100 (2022-01-05 04:00" in told


def test_a_grid_of_which_every_set_fails_says_why_and_ends_with_one(hourly: list[str], tmp_path: Path) -> None:
    file = tmp_path / "breaks.py"
    file.write_text(BREAKS)
    asked = ["grid", str(file), *RUN[2:], *hourly, "--grid", "at=1,2,3", "--json"]
    told = json.loads(said(asked, tmp_path, exit_code=1).splitlines()[-1])
    assert (told["combinations"], told["failed"], told["best"]) == (3, 3, [])
    assert "raised ZeroDivisionError at bar 1 (2022-01-01 01:00" in said(asked[:-1], tmp_path, exit_code=1).replace(
        "\n", " "
    )


def test_the_earlier_systems_line_works_unchanged(test_data: Path, tmp_path: Path) -> None:
    import polars as pl

    bars = pl.read_parquet(test_data / "crypto" / "spot_1d" / "BTCUSDT_1d.parquet").tail(400)
    (tmp_path / "historical").mkdir()
    bars.select("timestamp", "open", "high", "low", "close", "volume").write_csv(
        tmp_path / "historical" / "BTCUSDT_1d.csv"
    )
    suite = Path(__file__).parents[3] / "services" / "backtest_suite"
    line = [
        "--strategy",
        "momentum",
        "--data-dir",
        str(tmp_path / "historical"),
        "--output-dir",
        str(tmp_path / "results"),
    ]
    surroundings = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *line],
        check=False,
        cwd=suite,
        env=surroundings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "results").iterdir()} >= {"report.html", "trades.csv", "manifest.json"}
