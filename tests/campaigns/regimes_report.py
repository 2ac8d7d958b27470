"""`just regimes`: what the regime model says about years of real bars, out of sample: docs/regimes_measured.md and pictures.

Everything is read by the model that was in use when the bar closed. What is said about a bar's successor uses, for its
scale, only what was known by then.
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "trimtab", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
import matplotlib.pyplot as plt  # after the backend is chosen
from rich.progress import track

from services.ml_service.em import Array
from services.ml_service.fitting import odds_of
from services.ml_service.transitions import model_odds
from shared.regimes.labels import NAMES
from tests.campaigns.rolling_refits import History, dwells, market, next_returns, refitted
from tests.pure.ml_service.test_on_markets import TRAINED, UNSEEN, brier, model_of, trained, world

DOCS = Path(__file__).parents[2] / "docs"
COLORS = {"BULL": "#2e9e6b", "BEAR": "#d1495b", "CHOP": "#9aa0a6"}
HOURLY, DAILY = (4_000, 1_000), (1_000, 90)  # window and bars between two refits, as the service's settings have them
MONTH_DAYS = 30.44
LARGE = 0.8  # the quantile beyond which a move is called large


def main() -> None:
    data = Path(os.environ["TRIMTAB_TEST_DATA"]) / "crypto"
    asked = [
        ("BTC hourly", data / "spot_1h" / "BTCUSDT_1h.parquet", HOURLY),
        ("ETH hourly", data / "spot_1h" / "ETHUSDT_1h.parquet", HOURLY),
        ("SOL hourly", data / "spot_1h" / "SOLUSDT_1h.parquet", HOURLY),
        ("ADA hourly", data / "spot_1h" / "ADAUSDT_1h.parquet", HOURLY),
        ("BTC daily", data / "spot_1d" / "BTCUSDT_1d.parquet", DAILY),
    ]
    found = {name: refitted(market(file), *sizes) for name, file, sizes in track(asked, "refitting")}
    lines = [
        "# Regimes, measured on real bars",
        "",
        "Printed by `just regimes`; [regimes.md](regimes.md) says what it means. Every bar is read by the model that was in use when it closed: fitted on bars before it, and promoted by the rule of the gate.",
        "",
        *meaning(found),
        *next_bars(found),
        *calibration(found),
    ]
    (DOCS / "regimes_measured.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pictures = DOCS / "pictures"
    pictures.mkdir(exist_ok=True)
    picture_of_price(found["BTC hourly"], pictures / "regimes_price.svg")
    picture_of_matrix(found["BTC hourly"], pictures / "regimes_matrix.svg")
    picture_of_reliability(found, pictures / "regimes_reliability.svg")
    picture_of_truth(pictures / "regimes_truth.svg")
    picture_of_agreement(found, pictures / "regimes_agreement.svg")


def meaning(found: dict[str, History]) -> list[str]:
    """What a name means from one model to the next."""
    rows = [
        "## From one model to the next",
        "",
        "A refit goes on from the model in use, sees the newest window, and is promoted when both name at least 80 % of the newest fifth of it alike, which no fit has seen. A flip is a name that means to one what another name means to the other.",
        "",
        "| market | refits | refused | flips between promoted ones | agreement, mean (least) | the same of fits from nothing, named by what they emit | by the place of their states |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, history in found.items():
        refits = history.refits
        agreements = np.array([one.agreement for one in refits])
        flips = sum(one.is_flipped for one in refits if not one.is_refused)
        cold, naive = (
            np.nanmean([getattr(one, kind) for one in refits]) for kind in ("cold_agreement", "naive_agreement")
        )
        refused = sum(one.is_refused for one in refits)
        rows.append(
            f"| {name} | {len(refits)} | {refused} | {flips} | {agreements.mean():.3f} ({agreements.min():.2f}) | {cold:.2f} | {naive:.2f} |"
        )
    everything = [one for history in found.values() for one in history.refits]
    flips = sum(one.is_flipped for one in everything if not one.is_refused)
    rows.append(f"| all | {len(everything)} | {sum(one.is_refused for one in everything)} | {flips} | | | |")
    return [*rows, "", "![agreement of consecutive models](pictures/regimes_agreement.svg)", ""]


def next_bars(found: dict[str, History]) -> list[str]:
    """What the bar after a reading did."""
    rows = [
        "## The next bar",
        "",
        "Volatility is the standard deviation of the next bar's log return, the t value is of its mean. A switch is a bar with another name than the one before.",
        "",
        "| market | regime | share of time | stay, bars | next bar: volatility, bps | mean return, bps (t) | switches a month |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, history in found.items():
        named, after = history.odds.argmax(axis=1)[:-1], next_returns(history)[:-1]
        stays = dwells(named)
        days = (
            history.market.opened_ms[history.first + len(named)] - history.market.opened_ms[history.first]
        ) / 86_400_000
        switches = (len(stays) - 1) / days * MONTH_DAYS
        for k, regime in enumerate(NAMES):
            moves = after[named == k] * 1e4
            length = np.mean([bars for of, bars in stays if of == k])
            t = moves.mean() / moves.std() * np.sqrt(len(moves))
            last = f"{switches:.1f}" if k == 0 else ""
            rows.append(
                f"| {name if k == 0 else ''} | {regime} | {(named == k).mean():.0%} | {length:.0f} | {moves.std():.0f} | {moves.mean():+.1f} ({t:+.1f}) | {last} |"
            )
    return [
        *rows,
        "",
        "![price, regimes and odds](pictures/regimes_price.svg)",
        "",
        "![transitions and stays](pictures/regimes_matrix.svg)",
        "",
    ]


def foretold(history: History, is_event: Array) -> tuple[Array, Array, Array]:
    """(said, held, usual): the chance of an event on the next bar by the odds of the regimes, whether it came, and the
    chance that does not know of regimes; all from what was known when the bar closed."""
    odds, events = history.odds[:-1], is_event[:-1].astype(np.float64)
    warm = 2_000 if len(odds) > 6_000 else 500
    known = np.cumsum(odds * events[:, None], axis=0) + 1.0  # of each regime, with one of five before the first
    rate = known / (np.cumsum(odds, axis=0) + 5.0)
    usual = (np.cumsum(events) + 1.0) / (np.arange(1, len(events) + 1) + 5.0)
    said = (odds[warm:] * rate[warm - 1 : -1]).sum(axis=1)
    return said, events[warm:], usual[warm - 1 : -1]


def is_large(history: History) -> Array:
    """Whether the next bar moves farther than four of five did in the 500 bars before."""
    moves = np.abs(next_returns(history))
    return moves > _trailing_quantile(moves, LARGE)


def is_low(history: History) -> Array:
    """Whether the next bar's return is below that of four of five in the 500 bars before."""
    moves = next_returns(history)
    return moves < _trailing_quantile(moves, 1.0 - LARGE)


def _trailing_quantile(values: Array, share: float) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.full(500, values[0]), values[:-1]]), 500)
    return np.quantile(windows, share, axis=1)


def calibration(found: dict[str, History]) -> list[str]:
    """Do the odds come true?"""
    rows = [
        "## Odds of what can be seen",
        "",
        "The truth of a regime is not seen in a real market; the next bar is. Said is the chance of an event by the odds of the regimes and how often it came in each of them so far; usual is how often it came at all. Brier score and log score (nats): lower is better, and skill is the share of the usual one's Brier score that is saved.",
        "",
        "| market | event on the next bar | Brier score: said, usual | skill | log score: said, usual |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, history in found.items():
        for event, told in (
            ("a move larger than 4 of 5 lately", is_large(history)),
            ("a return below 4 of 5 lately", is_low(history)),
        ):
            said, held, usual = foretold(history, told)
            scores = [((p - held) ** 2).mean() for p in (said, usual)]
            logs = [-np.log(np.where(held > 0, p, 1 - p)).mean() for p in (said, usual)]
            rows.append(
                f"| {name} | {event} | {scores[0]:.4f}, {scores[1]:.4f} | {1 - scores[0] / scores[1]:+.2%} | {logs[0]:.4f}, {logs[1]:.4f} |"
            )
    return [*rows, "", "![reliability](pictures/regimes_reliability.svg)", ""]


def picture_of_price(history: History, file: Path, bars: int = 1_000) -> None:
    last = history.first + len(history.odds)
    part = slice(last - bars, last)
    days = history.market.opened_ms[part].astype("datetime64[ms]")
    close = np.array([bar.close for bar in history.market.bars[part]])
    odds = history.odds[-bars:]
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9, 4.6), sharex=True, height_ratios=[3, 1.2], layout="constrained"
    )
    above.plot(days, close, color="#20242a", linewidth=0.9)
    for k, regime in enumerate(NAMES):
        is_named = odds.argmax(axis=1) == k
        above.fill_between(
            days,
            close.min(),
            close.max(),
            where=is_named,
            color=COLORS[regime],
            alpha=0.22,
            linewidth=0,
            step="post",
            label=regime,
        )
    above.set_ylabel("BTC, USDT")
    above.legend(loc="upper left", ncols=3, frameon=False)
    below.stackplot(days, odds.T, colors=[COLORS[name] for name in NAMES], alpha=0.75)
    below.set(ylim=(0, 1), ylabel="odds")
    _save(figure, file)


def picture_of_matrix(history: History, file: Path) -> None:
    """The last model's transitions among names beside those of the bars that it has read, and how long stays were."""
    first, model = history.models[-1]
    odds = history.odds[first - history.first :]
    named = odds.argmax(axis=1)
    counts = np.zeros((3, 3))
    np.add.at(counts, (named[:-1], named[1:]), 1.0)
    tables = {
        "by the model": np.array([row or [np.nan] * 3 for row in model_odds(model)]),
        "of the bars it read": counts / counts.sum(axis=1, keepdims=True),
    }
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), width_ratios=[1, 1, 1.5], layout="constrained")
    for axis, (title, table) in zip(axes, tables.items(), strict=False):
        axis.imshow(table, cmap="Greys", vmin=0, vmax=1)
        axis.set(title=title, xticks=range(3), yticks=range(3), xticklabels=NAMES, yticklabels=NAMES)
        for i in range(3):
            for j in range(3):
                axis.text(
                    j,
                    i,
                    f"{table[i, j]:.3f}",
                    ha="center",
                    va="center",
                    color="white" if table[i, j] > 0.5 else "black",
                )
    stays = dwells(history.odds.argmax(axis=1))
    for k, regime in enumerate(NAMES):
        axes[2].hist(
            [bars for of, bars in stays if of == k],
            bins=np.arange(0, 121, 4),
            histtype="step",
            color=COLORS[regime],
            label=regime,
        )
    axes[2].set(title="stays, bars", xlabel="bars", ylabel="times")
    axes[2].legend(frameon=False)
    _save(figure, file)


def picture_of_reliability(found: dict[str, History], file: Path) -> None:
    figure, axis = plt.subplots(figsize=(4.6, 4), layout="constrained")
    for name, history in found.items():
        said, held, _ = foretold(history, is_large(history))
        edges = np.quantile(said, np.linspace(0, 1, 11))
        places = np.clip(np.searchsorted(edges, said, side="right") - 1, 0, 9)
        axis.plot(
            [said[places == b].mean() for b in range(10)],
            [held[places == b].mean() for b in range(10)],
            marker="o",
            markersize=3,
            linewidth=1,
            label=name,
        )
    axis.plot([0, 0.5], [0, 0.5], color="#9aa0a6", linewidth=0.8)
    axis.set(
        xlabel="said: chance of a large move", ylabel="how often it came", title="tenths of the bars, by what was said"
    )
    axis.legend(frameon=False)
    _save(figure, file)


def picture_of_truth(file: Path) -> None:
    """How often it was so when the odds of a regime said so much, on simulated markets after the training."""
    figure, axis = plt.subplots(figsize=(4.6, 4), layout="constrained")
    for symbol, seed in (("BTC-USDT", 7), ("ETH-USDT", 7), ("SOL-USDT", 3)):
        simulated = world(symbol, seed)
        odds = odds_of(model_of(trained(simulated.bars[:TRAINED])), simulated.rows)[UNSEEN]
        truth = np.eye(3)[simulated.truth[UNSEEN]].ravel()
        places = np.clip((odds.ravel() * 10).astype(int), 0, 9)
        points = [
            (odds.ravel()[places == b].mean(), truth[places == b].mean()) for b in range(10) if (places == b).any()
        ]
        score, log_score = (
            brier(odds, simulated.truth[UNSEEN]),
            -np.log(np.maximum(odds[truth.reshape(-1, 3) > 0], 1e-12)).mean(),
        )
        axis.plot(
            *zip(*points, strict=True),
            marker="o",
            markersize=3,
            linewidth=1,
            label=f"{symbol}: Brier {score:.3f}, log {log_score:.2f}",
        )
    axis.plot([0, 1], [0, 1], color="#9aa0a6", linewidth=0.8)
    axis.set(
        xlabel="said: odds of a regime", ylabel="how often it held", title="simulated markets, bars after the training"
    )
    axis.legend(frameon=False)
    _save(figure, file)


def picture_of_agreement(found: dict[str, History], file: Path) -> None:
    figure, axis = plt.subplots(figsize=(9, 2.8), layout="constrained")
    for name, history in found.items():
        days = history.market.opened_ms[[one.at - 1 for one in history.refits]].astype("datetime64[ms]")
        (line,) = axis.plot(days, [one.agreement for one in history.refits], linewidth=1.2, label=name)
        axis.plot(
            days, [one.cold_agreement for one in history.refits], linewidth=0.6, alpha=0.5, color=line.get_color()
        )
    axis.axhline(0.8, color="#20242a", linewidth=0.6, linestyle=":")
    axis.set(
        ylim=(0, 1),
        ylabel="bars named alike",
        title="each refit and the model in use (bold); two fits from nothing (thin)",
    )
    axis.legend(frameon=False, ncols=5, loc="lower left")
    _save(figure, file)


def _save(figure: plt.Figure, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
