"""What `trimtab up` means: from its flags to each service's settings, then waiting for ready, and for the end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from services.launcher import LOCKSTEP, ORDER, Launcher
from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import check_symbol, symbol_of_file, timeframe_of_file
from shared.contracts.times import parse_time, timeframe_length
from shared.runtime.logs import in_words
from shared.runtime.process import EXIT_NEEDS_OPERATOR
from shared.runtime.settings import PORTS, strategies_folder, words
from shared.trading.strategies import find_strategy, load_strategies

SIMULATED_SYMBOLS = "BTC-USDT,ETH-USDT,SOL-USDT"
SIMULATED_BARS = 10_000  # an instrument, with --until-end
STRATEGIES = "momentum,trend_follow"
SETTLED_S = 20.0  # that the read models may take to show the last bar's trades
LOUD = ('"level": "error"', '"level": "critical"', "Traceback", "alert", "needs_operator")


@dataclass(frozen=True)
class Plan:
    """The flags of `trimtab up`."""

    market: tuple[Path, ...] = ()
    start: str = ""
    end: str = ""
    speed: str = "1"
    bars: int = 0
    until_end: bool = False
    venue: str = "sim"
    venue_url: str = ""
    symbols: str = ""
    timeframe: str = ""
    strategies: str = ""
    seed: int = 7
    port_base: int = 8000
    data_dir: Path | None = None
    verbose: bool = False
    as_json: bool = False

    def check(self) -> None:
        """Raise NeedsOperator, or BadMessage, for flags that cannot be right."""
        if self.speed != "max":
            try:
                if float(self.speed) <= 0:
                    raise ValueError
            except ValueError:
                raise NeedsOperator(
                    f"--speed must be a number of bars a second above 0, or max, was {self.speed!r}."
                ) from None
        for file in self.market:
            if not file.exists():
                raise NeedsOperator(f"--market must name a file of bars, there is none at {file}.")
        if self.market and self.venue != "sim":
            raise NeedsOperator("--market plays recorded bars on the simulated venue: leave --venue away.")
        if self.until_end and self.venue != "sim":
            raise NeedsOperator("A real venue has no end: leave --until-end away.")
        for text in (self.start, self.end):
            if text:
                parse_time(text)
        if self.timeframe:
            timeframe_length(self.timeframe)
        for symbol in words(self.symbols):
            check_symbol(symbol)
        there = load_strategies(strategies_folder())
        for name in words(self.strategies):
            find_strategy(name, there)

    @property
    def bar_length(self) -> str:
        """The timeframe: asked for, told by the files' names, or one minute."""
        told = next((found for file in self.market if (found := timeframe_of_file(file.stem))), None)
        return self.timeframe or told or "1m"

    @property
    def traded(self) -> str:
        """The symbols: asked for, told by the files' names, or the simulated three."""
        if self.symbols:
            return self.symbols
        return ",".join(symbol_of_file(file.stem) for file in self.market) or SIMULATED_SYMBOLS

    @property
    def folder(self) -> Path:
        """Where this run's data lies: a folder of its own for each market, so that `up` again goes on with the same."""
        if self.data_dir is not None:
            return self.data_dir
        if self.market:
            said = json.dumps(
                [[str(file.resolve()) for file in self.market], self.start, self.end, self.traded, self.seed]
            )
            return Path("var") / f"{self.market[0].stem}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
        return Path("var") / ("simulated" if self.venue == "sim" else self.venue)

    @property
    def services(self) -> tuple[str, ...]:
        """Those that this plan needs: a real venue needs no simulated one."""
        return ORDER if self.venue == "sim" else tuple(name for name in ORDER if name != "venue_sim")

    @property
    def bars_to_play(self) -> int:
        """Bars an instrument after which the simulated market ends; 0: never, or with the recorded ones."""
        if self.market or not (self.until_end or self.bars):
            return 0
        return self.bars or SIMULATED_BARS

    @property
    def environment(self) -> dict[str, str]:
        """The settings of all services, as variables."""
        simulated = self.venue == "sim" and not self.market
        said = {
            "TRIMTAB_VENUE": self.venue,
            "TRIMTAB_TIMEFRAME": self.bar_length,
            "TRADE_SYMBOLS": self.traded,
            "TRIMTAB_ENGINE_STRATEGIES": self.strategies or STRATEGIES,
            "TRIMTAB_PARAM_CONTROLLER_STRATEGIES": self.strategies or STRATEGIES,
            "TRIMTAB_BACKTEST_SUITE_STRATEGIES": self.strategies or STRATEGIES,
            "TRIMTAB_PARAM_CONTROLLER_SEED": str(self.seed),
            "TRIMTAB_BACKTEST_SUITE_SEED": str(self.seed),
            "TRIMTAB_ML_SERVICE_SEED": str(self.seed),
            "TRIMTAB_GOVERNOR_PROFILE": "demo" if simulated else "paper",
            # Services run in the folder of the source; the user's strategies lie where the user is.
            "TRIMTAB_STRATEGIES": str(strategies_folder().resolve()),
        }
        if self.venue_url:
            said["TRIMTAB_VENUE_URL"] = self.venue_url
        if self.venue == "sim":
            said |= {
                "TRIMTAB_VENUE_SIM_SYMBOLS": self.traded,
                "TRIMTAB_VENUE_SIM_SEED": str(self.seed),
                "TRIMTAB_VENUE_SIM_SPEED": self.speed,
                "TRIMTAB_VENUE_SIM_LOCKSTEP": ",".join(LOCKSTEP) if self.speed == "max" else "",
                "TRIMTAB_VENUE_SIM_BARS": str(self.bars_to_play),
                "TRIMTAB_OPS_API_MARKET": "recorded" if self.market else "simulated",
            }
        if self.market:
            said |= {
                "TRIMTAB_VENUE_SIM_MARKET": ",".join(str(file.resolve()) for file in self.market),
                "TRIMTAB_VENUE_SIM_MARKET_SYMBOLS": self.traded,
                "TRIMTAB_VENUE_SIM_BEGINS": self.start,
                "TRIMTAB_VENUE_SIM_ENDS": self.end,
            }
        return said


def bring_up(plan: Plan) -> int:
    """Run the stack until Ctrl-C, or to the market's end. Returns the exit code."""
    plan.check()
    return asyncio.run(_live(plan))


async def _live(plan: Plan) -> int:
    loop = asyncio.get_running_loop()
    started = loop.time()
    terminal = Terminal(plan)
    interrupted = asyncio.Event()
    launcher: Launcher | None = None

    def on_signal() -> None:
        if interrupted.is_set() and launcher is not None:
            launcher.kill_at_once()
        interrupted.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    _check_same_market(plan)
    launcher = Launcher(
        plan.folder,
        plan.services,
        plan.environment,
        plan.port_base,
        terminal.line,
        os.environ.get("TRIMTAB_NATS_URL", ""),
    )
    terminal.open_logs(plan.folder / "logs")
    try:
        stopping = asyncio.ensure_future(interrupted.wait())
        life = asyncio.ensure_future(_life(plan, launcher, terminal, started))
        await asyncio.wait({stopping, life, launcher.failed}, return_when=asyncio.FIRST_COMPLETED)
        outcome: dict[str, Any] | None = None
        if launcher.failed.done():
            life.cancel()
            terminal.say(f"trimtab: {launcher.failed.exception()}")
            return EXIT_NEEDS_OPERATOR
        if life.done():
            outcome = life.result()
        life.cancel()
        stopping.cancel()
    finally:
        terminal.say("Stopping ...")
        await launcher.stop()
        if launcher.failed.done():
            launcher.failed.exception()
        terminal.close()
    if outcome is not None:
        sys.stdout.write((json.dumps(outcome) if plan.as_json else _told(outcome)) + "\n")
    return 0


async def _life(plan: Plan, launcher: Launcher, terminal: Terminal, started: float) -> dict[str, Any] | None:
    loop = asyncio.get_running_loop()
    await launcher.start()
    terminal.say(f"The page: {launcher.page}/?login={launcher.login}   (answers after {loop.time() - started:.1f} s)")
    async with httpx.AsyncClient(timeout=5.0) as web:
        stack = Answers(web, plan.port_base)
        await stack.until_ready(plan.services)
        terminal.say(
            f"All {len(plan.services)} services are ready after {loop.time() - started:.1f} s. Ctrl-C stops them."
        )
        while not (plan.until_end and (await stack.get("venue_sim", "/sim/status"))["finished"]):
            await asyncio.sleep(0.5 if plan.until_end else 2.0)  # a person's glance; nothing waits for it
            terminal.glance(await stack.get_or_none("ops_api", "/status"))
        return await stack.outcome(loop.time() - started)


class Answers:
    """What the running services say over HTTP."""

    def __init__(self, web: httpx.AsyncClient, port_base: int) -> None:
        self._web, self._port_base = web, port_base

    async def get(self, service: str, path: str) -> Any:
        """A service's answer. Raises httpx.HTTPError."""
        answer = await self._web.get(f"http://127.0.0.1:{self._port_base + PORTS[service]}{path}")
        answer.raise_for_status()
        return answer.json()

    async def get_or_none(self, service: str, path: str) -> Any:
        """A service's answer, or None while it is away."""
        try:
            return await self.get(service, path)
        except httpx.HTTPError:
            return None

    async def until_ready(self, services: tuple[str, ...]) -> None:
        """Wait until each of these says that it is ready."""
        for name in services:
            while await self.get_or_none(name, "/readyz") is None:  # noqa: ASYNC110  # another process, over HTTP
                await asyncio.sleep(0.1)

    async def outcome(self, wall_s: float) -> dict[str, Any]:
        """The whole run in one object, once the read models show what the engine did last."""
        engine, venue = await self.get("engine", "/status"), await self.get("venue_sim", "/sim/status")
        deadline = asyncio.get_running_loop().time() + SETTLED_S
        while True:
            ops = await self.get("ops_api", "/status")
            told = all(ops[name] == engine[name] for name in ("fills", "trades_closed", "decisions"))
            if (
                told and ops["equity"] == engine["equity_end"] and ops["bars_closed"] == engine["bars_decided"]
            ) or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.05)
        stats = await self.get("ops_api", "/trades/stats")
        closed = sum(venue["bars"].values())
        return {
            "bars_closed": closed,
            "bars_decided": engine["bars_decided"],
            "bars_missed": closed - engine["bars_decided"],
            "bars_doubled": engine["bars_doubled"],
            "gaps": sum(venue["gaps"].values()),
            "regimes": {name: engine["regimes"].get(name, 0) for name in ("BULL", "BEAR", "CHOP", "UNKNOWN")},
            **{
                name: ops[name] for name in ("models_promoted", "models_refused", "presets_promoted", "presets_refused")
            },
            **{name: engine[name] for name in ("decisions", "orders", "fills", "trades_closed", "halts")},
            "stats": stats,
            "equity_start": engine["equity_start"],
            "equity_end": engine["equity_end"],
            "unknown_paths": venue["unknown_paths"],
            "wall_s": round(wall_s, 2),
        }


class Terminal:
    """What a person sees. Every line of every service goes to `logs/`; what is loud comes here as well."""

    def __init__(self, plan: Plan) -> None:
        self._verbose = plan.verbose
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("Starting ...") if self._console.is_terminal and not plan.as_json else None
        self._logs: dict[str, Any] = {}
        self._folder: Path | None = None
        if self._status is not None:
            self._status.start()

    def open_logs(self, folder: Path) -> None:
        """Where each service's lines are kept."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def say(self, text: str) -> None:
        """A line of ours."""
        self._console.print(text, style="bold", markup=False, soft_wrap=True)

    def line(self, service: str, text: str) -> None:
        """A line of a service."""
        if self._folder is not None:
            if service not in self._logs:
                self._logs[service] = (self._folder / f"{service}.log").open("a", encoding="utf-8")
            self._logs[service].write(text + "\n")
            self._logs[service].flush()
        if service == "launcher" or self._verbose or any(word in text for word in LOUD):
            self._console.print(f"{service:<17}{in_words(text)}", markup=False, soft_wrap=True)

    def glance(self, status: dict[str, Any] | None) -> None:
        """The stack in one line, on a terminal."""
        if self._status is None or status is None:
            return
        self._status.update(
            f"{status.get('venue_time', '')}  bars {status.get('bars_closed', 0):,}  models {status['models_promoted']}  "
            f"presets {status['presets_promoted']}  fills {status['fills']}  trades {status['trades_closed']}  "
            f"equity {status.get('equity', '?')}"
        )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._status is not None:
            self._status.stop()
        for log in self._logs.values():
            log.close()


def _check_same_market(plan: Plan) -> None:
    """A data folder belongs to one market: positions of one are nothing on another."""
    file = plan.folder / "plan.json"
    kept = {k: str(v) for k, v in asdict(plan).items() if k in ("venue", "start", "end", "seed")}
    kept |= {
        "market": ",".join(str(f.resolve()) for f in plan.market),
        "symbols": plan.traded,
        "timeframe": plan.bar_length,
    }
    if file.exists():
        before: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        changed = [name for name in kept if before.get(name) != kept[name]]
        if changed:
            was = ", ".join(f"{name} {before.get(name)!r} (now {kept[name]!r})" for name in changed)
            raise NeedsOperator(f"The data folder {plan.folder} holds a run with {was}. Pass another --data-dir.")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def _told(outcome: dict[str, Any]) -> str:
    lines = [f"{name:>18}  {value}" for name, value in outcome.items() if not isinstance(value, dict)]
    stats = outcome["stats"]
    lines += [f"{name:>18}  {stats[name]}" for name in ("win_rate", "sharpe", "max_drawdown", "fees") if name in stats]
    return "\n".join(lines)
