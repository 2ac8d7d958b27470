"""Every subject, written once: what it carries, who speaks, who listens, in which stream it is kept and for how long.

`docs/messages.md` and the NATS users' rights are printed from this table, and a test keeps both fresh.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from shared.contracts import execution, governance, jobs, market, operations, parameters, regime, risk
from shared.contracts.errors import BadMessage
from shared.contracts.wire import TOKEN, Message

M = TypeVar("M", bound=Message)

SERVICES = (
    "ingester",
    "ml_service",
    "param_controller",
    "governor",
    "backtest_suite",
    "engine",
    "ops_api",
    "notifier",
    "venue_sim",
)
EVERYONE = SERVICES


@dataclass(frozen=True)
class Stream:
    """Where JetStream keeps a family of subjects, and for how long."""

    name: str
    roots: tuple[str, ...]  # first words of its subjects
    max_age: timedelta
    max_bytes: int

    @property
    def filters(self) -> list[str]:
        """The NATS subject filters of this stream."""
        return [f"{root}.>" for root in self.roots]


GIB = 1024**3
MD = Stream("MD", ("md",), timedelta(days=30), 2 * GIB)
DATA = Stream("DATA", ("data", "universe"), timedelta(days=30), GIB // 4)
REGIME = Stream("REGIME", ("regime",), timedelta(days=30), GIB)
GOV = Stream("GOV", ("model", "preset", "gov"), timedelta(days=90), GIB)
PARAM = Stream("PARAM", ("param",), timedelta(days=90), GIB)
EXEC = Stream("EXEC", ("signal", "order", "trade", "portfolio"), timedelta(days=90), 2 * GIB)
RISK = Stream("RISK", ("risk", "cmd"), timedelta(days=90), GIB // 4)
BT = Stream("BT", ("bt",), timedelta(days=3), GIB // 2)
OPS = Stream("OPS", ("alert", "notify", "audit", "dlq"), timedelta(days=3), GIB // 4)
STREAMS = (MD, DATA, REGIME, GOV, PARAM, EXEC, RISK, BT, OPS)


@dataclass(frozen=True)
class Subject(Generic[M]):
    """One subject. `template` names fields of the message, so a message knows its own address."""

    template: str
    message: type[M]
    stream: Stream | None  # None: core NATS, may be dropped
    spoken_by: tuple[str, ...]
    heard_by: tuple[str, ...]

    def of(self, message: M) -> str:
        """The full subject of this message. Raises BadMessage when a field cannot be part of one."""
        parts = {name: getattr(message, name) for name in self.fields}
        for name, value in parts.items():
            if not TOKEN.fullmatch(str(value)):
                raise BadMessage(f"{self.template}: {name} must be 1 to 64 of letters, digits, _ and -, was {value!r}.")
        return self.template.format(**parts)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The message's fields that stand in the subject."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.template) if name)

    @property
    def root(self) -> str:
        """The words before the first field: `md.bar`."""
        return self.template.split(".{")[0]

    @cached_property
    def wildcard(self) -> str:
        """The NATS filter that matches every subject of this kind."""
        return re.sub(r"\{[a-z_]+\}", "*", self.template)


SERIES = "{venue}.{symbol}.{timeframe}"
SLEEVE = "{venue}.{strategy}.{symbol}.{timeframe}"

# MD
BAR_CLOSED = Subject(
    f"md.bar.{SERIES}",
    market.BarClosed,
    MD,
    ("ingester",),
    ("engine", "ml_service", "backtest_suite", "ops_api"),
)
GAP_FOUND = Subject(
    f"md.gap.{SERIES}",
    market.GapFound,
    MD,
    ("ingester",),
    ("engine", "ml_service", "backtest_suite", "ops_api"),
)
# DATA
CHUNK_REGISTERED = Subject(f"data.chunk.registered.{SERIES}", market.ChunkRegistered, DATA, ("ingester",), ("ops_api",))
QUALITY_FLAGGED = Subject(f"data.quality.{SERIES}", market.QualityFlagged, DATA, ("ingester",), ("ops_api", "notifier"))
UNIVERSE_UPDATED = Subject("universe.updated.{venue}", market.UniverseUpdated, DATA, ("ingester",), ("ops_api",))
# REGIME
REGIME_READING = Subject(
    f"regime.reading.{SERIES}", regime.RegimeReading, REGIME, ("ml_service",), ("param_controller", "ops_api")
)
MARKET_REGIME = Subject("regime.market.{venue}.{timeframe}", regime.MarketRegime, REGIME, ("ml_service",), ("ops_api",))
REGIME_TRANSITION = Subject(
    f"regime.transition.{SERIES}", regime.RegimeTransition, REGIME, ("ml_service",), ("ops_api", "notifier")
)
REGIME_MISMATCH = Subject(
    f"regime.mismatch.{SERIES}", regime.RegimeMismatch, REGIME, ("ops_api",), ("ops_api", "notifier")
)
# GOV
MODEL_TRAINED = Subject(
    f"model.trained.{SERIES}", governance.ModelTrained, GOV, ("ml_service",), ("governor", "ops_api")
)
MODEL_PROMOTED = Subject(
    f"model.promoted.{SERIES}",
    governance.ModelPromoted,
    GOV,
    ("governor",),
    ("ml_service", "engine", "ops_api", "notifier"),
)
MODEL_DEMOTED = Subject(
    f"model.demoted.{SERIES}",
    governance.ModelDemoted,
    GOV,
    ("governor",),
    ("ml_service", "engine", "ops_api", "notifier"),
)
MODEL_DRIFTED = Subject(
    f"model.drift.{SERIES}", governance.ModelDrifted, GOV, ("ml_service",), ("governor", "ops_api", "notifier")
)
PRESET_CANDIDATE = Subject(
    f"preset.candidate.{SLEEVE}",
    governance.PresetCandidate,
    GOV,
    ("backtest_suite", "param_controller"),
    ("governor", "ops_api"),
)
PRESET_PROMOTED = Subject(
    f"preset.promoted.{SLEEVE}",
    governance.PresetPromoted,
    GOV,
    ("governor",),
    ("param_controller", "engine", "backtest_suite", "ops_api", "notifier"),
)
PRESET_DEMOTED = Subject(
    f"preset.demoted.{SLEEVE}",
    governance.PresetDemoted,
    GOV,
    ("governor",),
    ("param_controller", "engine", "ops_api", "notifier"),
)
PRESET_REFUSED = Subject(
    f"preset.refused.{SLEEVE}",
    governance.PresetRefused,
    GOV,
    ("governor",),
    ("backtest_suite", "param_controller", "ops_api", "notifier"),
)
STAGE_CHANGED = Subject(
    "gov.transition.{kind}",
    governance.StageChanged,
    GOV,
    ("governor",),
    ("ml_service", "backtest_suite", "ops_api", "notifier"),
)
# PARAM
PARAM_DECISION = Subject(
    f"param.decision.{SLEEVE}", parameters.ParamDecision, PARAM, ("param_controller",), ("engine", "ops_api")
)
PARAM_OUTCOME = Subject(f"param.outcome.{SLEEVE}", parameters.ParamOutcome, PARAM, ("param_controller",), ("ops_api",))
# EXEC
SIGNAL = Subject(f"signal.{SLEEVE}", execution.Signal, EXEC, ("engine",), ("param_controller", "ops_api", "notifier"))
ORDER_SUBMITTED = Subject(f"order.submitted.{SLEEVE}", execution.OrderSubmitted, EXEC, ("engine",), ("ops_api",))
ORDER_ACCEPTED = Subject(f"order.accepted.{SLEEVE}", execution.OrderAccepted, EXEC, ("engine",), ("ops_api",))
ORDER_REJECTED = Subject(
    f"order.rejected.{SLEEVE}", execution.OrderRejected, EXEC, ("engine",), ("ops_api", "notifier")
)
ORDER_CANCELED = Subject(f"order.canceled.{SLEEVE}", execution.OrderCanceled, EXEC, ("engine",), ("ops_api",))
ORDER_EXPIRED = Subject(f"order.expired.{SLEEVE}", execution.OrderExpired, EXEC, ("engine",), ("ops_api",))
TRADE_FILL = Subject(
    f"trade.fill.{SLEEVE}", execution.TradeFill, EXEC, ("engine",), ("param_controller", "ops_api", "notifier")
)
TRADE_CLOSED = Subject(
    f"trade.closed.{SLEEVE}", execution.TradeClosed, EXEC, ("engine",), ("param_controller", "ops_api", "notifier")
)
PORTFOLIO_SNAPSHOT = Subject(
    "portfolio.snapshot.{account}", execution.PortfolioSnapshot, EXEC, ("engine",), ("ops_api",)
)
# RISK
RAIL_TOUCHED = Subject(f"risk.rail.{SLEEVE}", risk.RailTouched, RISK, ("engine",), ("ops_api", "notifier"))
BREAKER_TRIPPED = Subject(
    "risk.breaker.{account}", risk.BreakerTripped, RISK, ("engine",), ("ops_api", "notifier", "governor")
)
PAUSE = Subject("cmd.trading.pause.{account}", risk.Pause, RISK, ("ops_api",), ("engine",))
RESUME = Subject("cmd.trading.resume.{account}", risk.Resume, RISK, ("ops_api",), ("engine",))
FLATTEN = Subject("cmd.trading.flatten.{account}", risk.Flatten, RISK, ("ops_api",), ("engine",))
HALT = Subject("cmd.trading.halt.{account}", risk.Halt, RISK, ("ops_api",), ("engine",))
COMMAND_ANSWERED = Subject("cmd.ack.{account}", risk.CommandAnswered, RISK, ("engine",), ("ops_api", "notifier"))
# BT
EVIDENCE_ORDERED = Subject(
    "bt.job.{worker}", jobs.EvidenceOrdered, BT, ("governor",), ("backtest_suite", "ml_service", "ops_api")
)
BACKTEST_ORDERED = Subject("bt.work.{worker}", jobs.BacktestOrdered, BT, ("backtest_suite",), ("backtest_suite",))
EVIDENCE_GIVEN = Subject(
    "bt.result.{worker}", jobs.EvidenceGiven, BT, ("backtest_suite", "ml_service"), ("governor", "ops_api")
)
# OPS
ALERT = Subject("alert.{service}", operations.Alert, OPS, EVERYONE, ("ops_api", "notifier"))
NOTIFIED = Subject("notify.{channel}", operations.Notified, OPS, ("notifier",), ("ops_api",))
AUDITED = Subject("audit.{service}", operations.Audited, OPS, EVERYONE, ("ops_api",))
PARKED = Subject("dlq.{stream}", operations.Parked, OPS, EVERYONE, ("ops_api", "notifier"))
# core NATS, not kept
PROGRESS = Subject("progress.{service}", operations.Progress, None, EVERYONE, ("venue_sim", "param_controller"))
ASKED = Subject("asked.{service}", operations.Asked, None, ("venue_sim", "param_controller"), EVERYONE)
HEALTH = Subject("health.{service}", operations.Health, None, EVERYONE, ("ops_api", "notifier"))


SUBJECTS: tuple[Subject[Any], ...] = tuple(
    cast("Subject[Any]", value) for value in list(vars().values()) if isinstance(value, Subject)
)  # in the order written above


def subject_of(message: Message) -> Subject[Any]:
    """The one subject under which this kind of message travels."""
    return _BY_MESSAGE[type(message)]


_BY_MESSAGE: dict[type[Message], Subject[Any]] = {subject.message: subject for subject in SUBJECTS}
