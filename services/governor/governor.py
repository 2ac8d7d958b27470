"""Who may be used: applications, the evidence ordered on them, verdicts, champions. Pure: messages in, a ruling out.

An application is a pre-registration: what is to be judged is fixed before the bars are looked at that it is judged on.
They are opened for it once, on a report that the governor ordered itself; the opening is a line of the record, and so is
the verdict. A promotion is said before its line, so that who waits for the line finds the promotion there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from services.governor.applications import (
    Application,
    Kind,
    Ruling,
    demotion,
    promotion,
    refusal,
    stage_change,
)
from services.governor.examination import (
    Holdout,
    evidence_faults,
    model_faults,
    model_holdout,
    preset_faults,
    preset_holdout,
    registration,
)
from services.governor.gate import Profile, Rules, Verdict, judge, model_figures, preset_figures
from services.governor.record import Head, chained
from shared.artifacts.models import manifest_from_bytes
from shared.artifacts.signing import trusted_manifest
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.governance import Costs, ModelDrifted, ModelTrained, PresetCandidate, Stage, StageChanged
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.times import to_ms
from shared.trading.strategy import Strategy

GATE = "gate"  # the actor of every verdict that no person made


class Governor:
    """See the module."""

    def __init__(
        self,
        profile: Profile,
        strategies: Mapping[str, Strategy],
        costs: Costs,
        *,
        manual_bars: int,
        champions_per_sleeve: int,
        is_live: bool,
        model_key: bytes = b"",
    ) -> None:
        self.profile, self._strategies, self._costs = profile, strategies, costs
        self._manual_bars, self._most, self._is_live = manual_bars, champions_per_sleeve, is_live
        self._model_key = model_key
        self.applications: dict[tuple[Kind, str], Application] = {}
        self._by_job: dict[str, tuple[Kind, str]] = {}
        self._opened: dict[tuple[str, str], str] = {}  # (venue, what is registered) -> the preset it was opened for
        self._trials: dict[tuple[str, str, str], int] = {}  # (strategy, symbol, timeframe) -> sets ever tried
        self.head = Head()

    def recover(
        self, applications: Iterable[Application], trials: Iterable[tuple[str, str, str, int]], head: Head
    ) -> None:
        """Become what we were."""
        for application in applications:
            self._take(application)
        self._trials = {(strategy, symbol, timeframe): total for strategy, symbol, timeframe, total in trials}
        self.head = head

    def champions(self, place: tuple[str, str, str, str] | None = None) -> list[Application]:
        """What is admitted now, everywhere or in one place, the best first."""
        found = [one for one in self.applications.values() if one.stage == "champion" and place in (None, one.place)]
        return sorted(found, key=lambda one: (one.place, -one.score, one.subject_id))

    def awaiting(self, job_id: str) -> Application | None:
        """Who waits for this evidence; None when we did not order it, or have judged without it or with it."""
        key = self._by_job.get(job_id)
        application = None if key is None else self.applications[key]
        return None if application is None or application.is_judged else application

    # what is heard

    def on_preset(self, said: PresetCandidate) -> Ruling:
        """A preset applies: order evidence on it, or refuse it at once."""
        ruling = Ruling()
        self._count_trials((said.strategy, said.symbol, said.timeframe), said.trials, ruling)
        known = self.applications.get(("preset", said.preset_id))
        if known is not None:
            return self._again(known, said.proposed_at, ruling)
        application = Application(
            kind="preset",
            subject_id=said.preset_id,
            venue=said.venue,
            strategy=said.strategy,
            symbol=said.symbol,
            timeframe=said.timeframe,
            body=said.preset,
            is_synthetic=False,
            asked_at=said.proposed_at,
            data_sha256="" if said.train is None else said.train.data_sha256,
        )
        faults = preset_faults(said, self._strategies)
        holdout = preset_holdout(said, self._manual_bars)
        if not faults and (other := self._opened.get((said.venue, registration(said.preset)))):
            line = self.applications["preset", other].sequence
            reason = f"holdout: opened once for these parameters, as {other[:12]}, see line {line} of the record"
            application = msgspec.structs.replace(application, is_sound=True)
            return self._refuse(application, (reason,), said.proposed_at, ruling)
        return self._order(application, faults, holdout, self.profile.preset, ruling)

    def on_model(self, said: ModelTrained, content: bytes | None) -> Ruling:
        """A model applies. `content` is its artifact, None when the bus has none."""
        known = self.applications.get(("model", said.model_id))
        if known is not None:
            return self._again(known, said.trained_at, Ruling())
        application = Application(
            kind="model",
            subject_id=said.model_id,
            venue=said.venue,
            strategy="",
            symbol=said.symbol,
            timeframe=said.timeframe,
            body=said.manifest,
            is_synthetic=said.is_synthetic,
            asked_at=said.trained_at,
        )
        faults = model_faults(said, content, self._model_key)
        if faults:
            return self._refuse(application, tuple(faults), said.trained_at, Ruling())
        holdout = model_holdout(said, manifest_from_bytes(said.manifest))
        return self._order(application, [], holdout, self.profile.model, Ruling())

    def on_evidence(self, given: EvidenceGiven, known_sha256: str | None) -> Ruling:
        """The report that we ordered: the verdict. `known_sha256` is the hash under which these bars were seen before."""
        application = self.awaiting(given.job_id)
        if application is None or application.order is None:
            return Ruling()
        at = max(application.order.ordered_at, given.given_at)
        faults = [*evidence_faults(application.order, given, known_sha256), *self._distrust(application)]
        application = msgspec.structs.replace(application, evidence=given)
        if faults:
            return self._refuse(application, tuple(faults), at, Ruling())
        ruling = Ruling()
        key = (application.strategy, application.symbol, application.timeframe)
        if application.kind == "preset":
            self._count_trials(key, given.trials, ruling)
        verdict = self._verdict(application, given)
        if given.figures is not None and math.isfinite(given.figures.sharpe):
            application = msgspec.structs.replace(application, score=given.figures.sharpe)
        if not verdict.is_passed:
            return self._refuse(application, verdict.failed, at, ruling)
        application = msgspec.structs.replace(application, has_passed=True)
        better = [one for one in self.champions(application.place) if one.score >= application.score]
        if application.kind == "preset" and len(better) >= self._most:
            full = f"champions at most {self._most} a sleeve, {self._most} have a Sharpe ratio of at least "
            return self._refuse(application, (f"{full}{application.score:.4g}",), at, ruling)
        return self._promote(application, verdict.passed, at, GATE, ruling)

    def on_drift(self, said: ModelDrifted) -> Ruling:
        """A model sees the market worse than promised: beyond the profile's limit a champion is demoted."""
        champion = self.applications.get(("model", said.model_id))
        lost = said.expected - said.seen
        if champion is None or champion.stage != "champion" or not lost > self.profile.drift_nats:
            return Ruling()
        reason = f"drift at most {self.profile.drift_nats:g} nats a bar, was {lost:.4g} over {said.bars} bars"
        return self._demote(champion, reason, said.at, GATE)

    # what a person decides

    def promote_by_hand(self, kind: Kind, subject_id: str, reason: str, actor: str, now: datetime) -> Ruling:
        """Admit what was refused or demoted. Live only what has passed the gate. Raises NeedsOperator when it may not."""
        application = self._found(kind, subject_id)
        if application.stage == "champion":
            raise NeedsOperator(f"The {kind} {subject_id[:12]} is a champion already.")
        if self._is_live and not application.has_passed:
            raise NeedsOperator(f"Live takes only what passed its gate; {subject_id[:12]} did not.")
        if not application.is_sound:
            raise NeedsOperator(f"The {kind} {subject_id[:12]} is not what it says it is: see its line in the record.")
        if distrust := self._distrust(application):
            raise NeedsOperator(distrust[0])
        return self._promote(application, (reason,), _later(application, now), actor, Ruling())

    def demote_by_hand(self, kind: Kind, subject_id: str, reason: str, actor: str, now: datetime) -> Ruling:
        """Take a champion out of use. Raises NeedsOperator when it is none."""
        application = self._found(kind, subject_id)
        if application.stage != "champion":
            raise NeedsOperator(f"The {kind} {subject_id[:12]} is {application.stage}, not a champion.")
        return self._demote(application, reason, _later(application, now), actor)

    # how it is done

    def _order(
        self, application: Application, faults: list[str], holdout: Holdout, rules: Rules, ruling: Ruling
    ) -> Ruling:
        application = msgspec.structs.replace(application, is_sound=not faults)
        if not faults and holdout.bars < rules.least_bars:
            faults = [f"holdout_bars at least {rules.least_bars} that its maker has not seen, were {holdout.bars}"]
        if faults:
            return self._refuse(application, tuple(faults), application.asked_at, ruling)
        order = EvidenceOrdered(
            job_id=f"{application.kind}-{application.subject_id[:24]}-{to_ms(application.asked_at)}",
            worker="backtest_suite" if application.kind == "preset" else "ml_service",
            subject_id=application.subject_id,
            venue=application.venue,
            strategy=application.strategy,
            symbol=application.symbol,
            timeframe=application.timeframe,
            preset=application.body if application.kind == "preset" else b"",
            first=holdout.first,
            last=holdout.last,
            costs=self._costs,
            ordered_at=application.asked_at,
        )
        opened = f"holdout opened: {holdout.bars} bars of {order.first:%Y-%m-%d %H:%M} to {order.last:%Y-%m-%d %H:%M}"
        application = msgspec.structs.replace(application, order=order)
        line = self._line(application, "candidate", (opened,), application.asked_at, GATE, ruling)
        self._keep(msgspec.structs.replace(application, sequence=line.sequence), ruling)
        ruling.messages.append(order)
        return ruling

    def _distrust(self, application: Application) -> list[str]:
        """Why a model may not be used, whatever it can: a key may have been set since it applied."""
        if application.kind == "model":
            try:
                trusted_manifest(application.body, application.subject_id, self._model_key)
            except BadMessage as error:
                return [f"model: {error}"]
        return []

    def _verdict(self, application: Application, given: EvidenceGiven) -> Verdict:
        if application.kind == "model":
            # What a regime is called must go on to mean the same; what was learned of made-up bars meant nothing yet.
            succeeds = any(not one.is_synthetic for one in self.champions(application.place))
            return judge(model_figures(given, application.is_synthetic), self.profile.model, succeeds=succeeds)
        assert given.span is not None  # examined before
        trials = self._trials.get((application.strategy, application.symbol, application.timeframe), 0)
        return judge(preset_figures(given, application.timeframe, trials), self.profile.preset)

    def _again(self, known: Application, at: datetime, ruling: Ruling) -> Ruling:
        """It applied before: its verdict stands and is said again; a verdict that is awaited will be said anyway."""
        if known.is_judged:
            reasons = (f"judged before, see line {known.sequence} of the record",)
            self._write(known, known.stage, reasons, max(at, known.changed_at or at), GATE, ruling)
        return ruling

    def _refuse(self, application: Application, reasons: tuple[str, ...], at: datetime, ruling: Ruling) -> Ruling:
        if application.kind == "preset":
            ruling.messages.append(refusal(application, reasons, at))
        self._write(application, "refused", reasons, at, GATE, ruling)
        return ruling

    def _promote(
        self, application: Application, reasons: tuple[str, ...], at: datetime, actor: str, ruling: Ruling
    ) -> Ruling:
        """Say it, then who makes room for it, then write the lines."""
        others = [one for one in self.champions(application.place) if one.subject_id != application.subject_id]
        ruling.messages.append(promotion(application, at))
        if application.kind == "model":
            leaving = others  # one model reads a series, and the promotion says which
        else:
            leaving = others[self._most - 1 :]
            reason = f"a better one came, {application.subject_id[:12]}"
            ruling.messages += [demotion(one, reason, at) for one in leaving]
        self._write(application, "champion", reasons, at, actor, ruling)
        for one in leaving:
            self._write(one, "demoted", (f"made room for {application.subject_id}",), at, actor, ruling)
        return ruling

    def _demote(self, application: Application, reason: str, at: datetime, actor: str) -> Ruling:
        ruling = Ruling()
        ruling.messages.append(demotion(application, reason, at))
        self._write(application, "demoted", (reason,), at, actor, ruling)
        return ruling

    def _write(
        self, application: Application, after: Stage, reasons: tuple[str, ...], at: datetime, actor: str, ruling: Ruling
    ) -> None:
        """The line of a verdict, and the application as it is from now on."""
        line = self._line(application, after, reasons, at, actor, ruling)
        judged = msgspec.structs.replace(
            application, stage=after, is_judged=True, changed_at=at, sequence=line.sequence
        )
        self._keep(judged, ruling)

    def _line(
        self, application: Application, after: Stage, reasons: tuple[str, ...], at: datetime, actor: str, ruling: Ruling
    ) -> StageChanged:
        """The next line of the record."""
        line = chained(self.head, stage_change(application, after, reasons, self.profile.title, actor, at))
        self.head = Head(line.sequence, line.hash)
        ruling.messages.append(line)
        return line

    def _keep(self, application: Application, ruling: Ruling) -> None:
        self._take(application)
        ruling.changed.append(application)

    def _take(self, application: Application) -> None:
        key = (application.kind, application.subject_id)
        self.applications[key] = application
        if application.order is not None:
            self._by_job[application.order.job_id] = key
            if application.kind == "preset":
                self._opened.setdefault((application.venue, registration(application.body)), application.subject_id)

    def _found(self, kind: Kind, subject_id: str) -> Application:
        application = self.applications.get((kind, subject_id))
        if application is None:
            raise BadMessage(f"No {kind} {subject_id!r} has applied; GET /governance/log names those that did.")
        return application

    def _count_trials(self, key: tuple[str, str, str], told: int, ruling: Ruling) -> None:
        """Sets ever tried for this strategy here: the highest number ever told. Other bars do not make it forget."""
        total = max(told, self._trials.get(key, 0))
        if total > self._trials.get(key, 0):
            self._trials[key] = total
            ruling.trials.append((*key, total))


def _later(application: Application, now: datetime) -> datetime:
    """Venue time may stand still between two decisions of a person; each is a fact of its own all the same."""
    if application.changed_at is None:
        return now
    return max(now, application.changed_at + timedelta(milliseconds=1))
