"""The governor: an applicant is judged once, on bars that it has not seen, and every verdict is told and written."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec
import pytest

from services.governor.applications import Ruling
from services.governor.gate import profile
from services.governor.governor import Governor
from services.governor.record import verify
from shared.artifacts.models import manifest_bytes, manifest_from_bytes
from shared.artifacts.presets import preset_bytes, preset_id
from shared.artifacts.signing import signed
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.governance import (
    Costs,
    ModelDemoted,
    ModelDrifted,
    ModelPromoted,
    PresetCandidate,
    PresetDemoted,
    PresetPromoted,
    PresetRefused,
    StageChanged,
)
from shared.contracts.jobs import EvidenceOrdered
from shared.contracts.wire import Message
from shared.trading.strategies import BUILT_IN

from .applicants import (
    GOOD,
    LIKELY,
    a_preset,
    answer,
    at,
    candidate,
    span,
    trained,
)

M = TypeVar("M", bound=Message)


def governor(*, is_live: bool = False, champions: int = 3, model_key: bytes = b"") -> Governor:
    return Governor(
        profile("live" if is_live else "demo", "live" if is_live else "paper"),
        BUILT_IN,
        Costs(fee_bps=10.0, slippage_bps=5.0),
        manual_bars=500,
        champions_per_sleeve=champions,
        is_live=is_live,
        model_key=model_key,
    )


def one(ruling: Ruling, kind: type[M]) -> M:
    (found,) = [message for message in ruling.messages if isinstance(message, kind)]
    return found


def order_of(ruling: Ruling) -> EvidenceOrdered:
    return one(ruling, EvidenceOrdered)


def admit(of: Governor, entry: int, sharpe: float) -> Ruling:
    """A preset applies and shows this Sharpe ratio."""
    order = order_of(of.on_preset(candidate(a_preset(entry))))
    return of.on_evidence(answer(order, msgspec.structs.replace(GOOD, sharpe=sharpe)), None)


# the holdout


def test_a_preset_is_judged_on_the_bars_that_its_maker_left_unseen_and_at_our_costs() -> None:
    order = order_of(governor().on_preset(candidate()))

    assert (order.first, order.last) == (at(4_000), at(4_999))  # after the test's last bar, up to the last that closed
    assert order.costs == Costs(fee_bps=10.0, slippage_bps=5.0)
    assert order.preset == preset_bytes(a_preset())
    assert order.worker == "backtest_suite"


def test_the_opening_of_a_holdout_is_a_line_of_the_record_before_anybody_looks() -> None:
    ruling = governor().on_preset(candidate())

    assert [type(message) for message in ruling.messages] == [StageChanged, EvidenceOrdered]
    line, order = one(ruling, StageChanged), order_of(ruling)
    assert (line.sequence, line.before, line.after, line.evidence_id) == (1, "candidate", "candidate", order.job_id)
    assert line.reasons == (
        f"holdout opened: 1000 bars of {order.first:%Y-%m-%d %H:%M} to {order.last:%Y-%m-%d %H:%M}",
    )


def test_a_holdout_is_opened_once_for_the_same_parameters_whoever_proposes_them_and_when() -> None:
    of = governor()
    order_of(of.on_preset(candidate()))
    made_by_hand = msgspec.structs.replace(a_preset(), origin="manual")
    said = msgspec.structs.replace(
        candidate(made_by_hand),
        origin="manual",
        train=None,
        test=None,
        train_figures=None,
        test_figures=None,
        costs=None,
    )

    ruling = of.on_preset(said)

    (reason,) = one(ruling, PresetRefused).reasons
    assert (
        reason
        == f"holdout: opened once for these parameters, as {preset_id(a_preset())[:12]}, see line 1 of the record"
    )
    assert not [message for message in ruling.messages if isinstance(message, EvidenceOrdered)]
    order_of(of.on_preset(candidate(a_preset(40))))  # other parameters are another registration


def test_a_preset_made_by_hand_is_judged_on_the_newest_bars() -> None:
    said = msgspec.structs.replace(
        candidate(), origin="manual", train=None, test=None, train_figures=None, test_figures=None, costs=None
    )

    order = order_of(governor().on_preset(said))

    assert (order.first, order.last) == (at(4_500), at(4_999))


def test_a_model_is_judged_on_the_bars_that_neither_fit_nor_choice_has_seen() -> None:
    order = order_of(governor().on_model(*trained()))

    assert (order.first, order.last) == (at(4_000), at(4_999))
    assert order.worker == "ml_service"


def test_who_left_too_few_bars_is_refused_and_no_evidence_is_ordered() -> None:
    ruling = governor().on_preset(candidate(proposed=4_199))

    assert one(ruling, PresetRefused).reasons == ("holdout_bars at least 200 that its maker has not seen, were 199",)
    assert [type(message) for message in ruling.messages] == [PresetRefused, StageChanged]


# the verdict


def test_a_good_preset_is_promoted_and_the_promotion_is_told_before_its_line() -> None:
    of = governor()
    order = order_of(of.on_preset(candidate()))

    ruling = of.on_evidence(answer(order), None)

    assert [type(message) for message in ruling.messages] == [PresetPromoted, StageChanged]
    promoted, line = one(ruling, PresetPromoted), one(ruling, StageChanged)
    assert promoted.preset == preset_bytes(a_preset())
    assert promoted.evidence_id == order.job_id
    assert promoted.promoted_at == at(5_000)
    assert (line.before, line.after, line.profile, line.actor) == ("candidate", "champion", "demo/2", "gate")
    assert "trades at least 3, was 20" in line.reasons


def test_a_bad_preset_is_refused_with_rule_limit_and_value() -> None:
    of = governor()
    order = order_of(of.on_preset(candidate()))

    ruling = of.on_evidence(answer(order, msgspec.structs.replace(GOOD, max_drawdown=0.4, trades=1)), None)

    assert [type(message) for message in ruling.messages] == [PresetRefused, StageChanged]
    assert one(ruling, PresetRefused).reasons == (
        "trades at least 3, was 1",
        "max_drawdown at most 0.15, was 0.4",
    )


def test_a_good_model_replaces_the_one_before_and_both_are_written_down() -> None:
    of = governor()
    first, second = trained(), trained(shift=0.5)
    of.on_evidence(answer(order_of(of.on_model(*first))), None)

    ruling = of.on_evidence(answer(order_of(of.on_model(*second))), None)

    assert [type(message) for message in ruling.messages] == [ModelPromoted, StageChanged, StageChanged]
    assert one(ruling, ModelPromoted).manifest == second[0].manifest
    assert [(m.subject_id, m.after) for m in ruling.messages if isinstance(m, StageChanged)] == [
        (second[0].model_id, "champion"),
        (first[0].model_id, "demoted"),
    ]
    assert [one.subject_id for one in of.champions()] == [second[0].model_id]


@pytest.mark.parametrize("agreement", [0.79, math.nan])
def test_a_model_that_means_something_else_by_its_names_does_not_succeed_another(agreement: float) -> None:
    of = governor()
    first, second = trained(), trained(shift=0.5)
    of.on_evidence(answer(order_of(of.on_model(*first)), metrics={**LIKELY, "agreement": agreement}), None)
    assert [one.subject_id for one in of.champions()] == [first[0].model_id], "the first has none to agree with"

    order = order_of(of.on_model(*second))
    refused = one(of.on_evidence(answer(order, metrics={**LIKELY, "agreement": agreement}), None), StageChanged)

    assert refused.after == "refused" and refused.reasons[0].startswith("agreement at least 0.8, was ")
    assert [one.subject_id for one in of.champions()] == [first[0].model_id]


def test_a_model_of_real_bars_need_not_agree_with_one_of_made_up_ones() -> None:
    of = governor()
    made_up, real = trained(is_synthetic=True), trained(shift=0.5)
    of.on_evidence(answer(order_of(of.on_model(*made_up))), None)
    of.on_evidence(answer(order_of(of.on_model(*real)), metrics={**LIKELY, "agreement": 0.1}), None)
    assert [one.subject_id for one in of.champions()] == [real[0].model_id]


def test_a_models_refusal_is_told_by_its_line() -> None:
    of = governor()
    order = order_of(of.on_model(*trained()))

    ruling = of.on_evidence(answer(order, metrics={**LIKELY, "log_likelihood": -3.5}), None)

    (line,) = ruling.messages
    assert isinstance(line, StageChanged)
    assert (line.kind, line.after) == ("model", "refused")
    assert line.reasons == ("gain_over_one_gaussian at least 0, was -0.3",)


UNBELIEVABLE: dict[str, dict[str, Any]] = {
    "evidence: the ingester was away": {"failure": "the ingester was away"},
    "evidence: expected on": {"subject_id": "another"},
    "evidence: expected the span that was judged": {"span": None},
    "evidence: expected bars of": {"span": span(3_000, 4_999)},
    "evidence: these bars had the hash": {"span": span(4_000, 4_999, "f" * 64)},
    "evidence: expected figures": {"figures": None},
    "evidence: figures of 1000 bars on a span of 900": {"span": span(4_000, 4_899, "e" * 64)},
}


@pytest.mark.parametrize("reason", UNBELIEVABLE)
def test_evidence_that_is_not_what_was_ordered_refuses(reason: str) -> None:
    of = governor()
    order = order_of(of.on_preset(candidate()))

    ruling = of.on_evidence(answer(order, **UNBELIEVABLE[reason]), known_sha256="e" * 64)

    assert one(ruling, PresetRefused).reasons[0].startswith(reason)


def forged_params() -> PresetCandidate:
    wild = msgspec.structs.replace(a_preset(), params={**a_preset().params, "entry": 4_000})
    return candidate(wild)


UNSOUND = {
    "preset: Expected the preset": lambda: msgspec.structs.replace(candidate(), preset_id="0" * 64),
    "preset: expected one for momentum ETH-USDT 1m": lambda: msgspec.structs.replace(candidate(), symbol="ETH-USDT"),
    "source: expected": lambda: candidate(msgspec.structs.replace(a_preset(), source_hash="0" * 64)),
    "params: Strategy momentum: entry must be within 5..400, was 4000": forged_params,
    "test: expected after the training's end": lambda: msgspec.structs.replace(candidate(), test=span(2_000, 3_999)),
}


@pytest.mark.parametrize("reason", UNSOUND)
def test_an_applicant_that_is_not_what_it_says_is_refused_without_evidence(reason: str) -> None:
    of = governor()

    ruling = of.on_preset(UNSOUND[reason]())

    assert [type(message) for message in ruling.messages] == [PresetRefused, StageChanged]
    assert one(ruling, PresetRefused).reasons[0].startswith(reason)
    with pytest.raises(NeedsOperator, match="not what it says it is"):
        of.promote_by_hand("preset", one(ruling, PresetRefused).preset_id, "trust me", "ann", at(5_001))


def test_a_model_whose_bytes_are_missing_or_others_is_refused() -> None:
    said, content = trained()
    for found, reason in ((None, "artifact: expected"), (content + b"x", "model: Expected the model")):
        (line,) = governor().on_model(said, found).messages
        assert isinstance(line, StageChanged)
        assert (line.after, line.reasons[0].startswith(reason)) == ("refused", True)


KEY = b"the key of this house"


def test_with_a_key_a_model_that_was_not_signed_is_refused() -> None:
    said, content = trained()
    (line,) = governor(model_key=KEY).on_model(said, content).messages
    assert isinstance(line, StageChanged)
    assert line.after == "refused" and "has no signature, and a model key is set here" in line.reasons[0]

    manifest = signed(manifest_from_bytes(said.manifest), KEY)
    vouched = msgspec.structs.replace(said, manifest=manifest_bytes(manifest))
    assert order_of(governor(model_key=KEY).on_model(vouched, content))


def test_a_model_from_before_the_key_is_admitted_neither_by_its_evidence_nor_by_hand() -> None:
    said, content = trained()
    before = governor()
    order = order_of(before.on_model(said, content))
    of = governor(model_key=KEY)
    of.recover(before.applications.values(), (), before.head)

    line = one(of.on_evidence(answer(order, None, metrics=LIKELY), None), StageChanged)
    assert line.after == "refused" and "has no signature" in line.reasons[0]
    with pytest.raises(NeedsOperator, match="has no signature"):
        of.promote_by_hand("model", said.model_id, "I know it", "ann", at(5_000))


# once


def test_an_applicant_is_judged_once_however_often_it_applies() -> None:
    of = governor()
    order = order_of(of.on_preset(candidate()))
    assert of.on_preset(candidate(proposed=5_001)).messages == []  # its verdict is awaited
    of.on_evidence(answer(order, msgspec.structs.replace(GOOD, trades=1)), None)
    assert of.on_evidence(answer(order), None).messages == []  # a second report changes nothing

    again = of.on_preset(candidate(proposed=6_000))

    (line,) = again.messages  # who waits for a verdict has one
    assert isinstance(line, StageChanged)
    assert (line.before, line.after) == ("refused", "refused")
    assert line.reasons == ("judged before, see line 2 of the record",)


def test_evidence_that_nobody_ordered_changes_nothing() -> None:
    of = governor()
    order = order_of(of.on_preset(candidate()))

    assert of.on_evidence(msgspec.structs.replace(answer(order), job_id="mine"), None) == Ruling()


def test_trials_never_go_down_whatever_bars_they_were_made_on_and_whoever_tells_them() -> None:
    of = governor()
    told: list[int] = []
    for entry, trials, sha256 in ((20, 24, "a"), (30, 10, "a"), (40, 60, "b"), (50, 5, "c")):
        said = candidate(a_preset(entry), trials=trials)
        assert said.train is not None
        train = msgspec.structs.replace(said.train, data_sha256=sha256 * 64)
        ruling = of.on_preset(msgspec.structs.replace(said, train=train))
        told += [total for *_, total in ruling.trials]
    assert told == [24, 60]  # only what rises is written

    of.on_preset(candidate(a_preset(20), trials=80, proposed=5_001))  # who applied before has tried more since
    order = order_of(of.on_preset(candidate(a_preset(60), trials=1)))
    deflated = of.on_evidence(answer(order), None)

    assert deflated.trials == []  # its own count is lower, and takes nothing back
    other = governor()
    other.recover(of.applications.values(), [("momentum", "BTC-USDT", "1m", 80)], of.head)
    assert other.on_preset(candidate(a_preset(70), trials=79)).trials == []
    assert other.on_preset(candidate(a_preset(80), trials=81)).trials == [("momentum", "BTC-USDT", "1m", 81)]


def test_a_governor_that_was_told_of_many_trials_believes_a_preset_less() -> None:
    def told(trials: int) -> str:
        of = governor(is_live=True)
        of.on_preset(candidate(a_preset(20), trials=trials))
        order = order_of(of.on_preset(candidate(a_preset(30), trials=1)))
        line = one(of.on_evidence(answer(order), None), StageChanged)
        (reason,) = [reason for reason in line.reasons if "deflated_confidence" in reason]
        return reason

    assert float(told(100_000).rpartition(" ")[2]) < float(told(2).rpartition(" ")[2])


# champions


def test_a_sleeve_has_so_many_champions_and_the_worst_makes_room_for_a_better_one() -> None:
    of = governor(champions=2)
    admit(of, 20, sharpe=1.0)
    admit(of, 30, sharpe=3.0)

    ruling = admit(of, 40, sharpe=2.0)

    assert [type(message) for message in ruling.messages] == [
        PresetPromoted,
        PresetDemoted,
        StageChanged,
        StageChanged,
    ]
    assert one(ruling, PresetDemoted).preset_id == preset_id(a_preset(20))
    assert [one.score for one in of.champions()] == [3.0, 2.0]


def test_one_that_is_no_better_than_a_full_sleeve_is_refused() -> None:
    of = governor(champions=2)
    admit(of, 20, sharpe=2.5)
    admit(of, 30, sharpe=3.0)

    ruling = admit(of, 40, sharpe=2.0)

    assert one(ruling, PresetRefused).reasons == ("champions at most 2 a sleeve, 2 have a Sharpe ratio of at least 2",)


# by hand


def test_a_rollback_promotes_the_model_before_and_the_record_names_the_person() -> None:
    of = governor()
    first, second = trained(), trained(shift=0.5)
    for said in (first, second):
        of.on_evidence(answer(order_of(of.on_model(*said))), None)

    ruling = of.promote_by_hand("model", first[0].model_id, "the new one misses crashes", "ann", at(5_000))

    assert one(ruling, ModelPromoted).model_id == first[0].model_id
    lines = [m for m in ruling.messages if isinstance(m, StageChanged)]
    assert [(line.after, line.actor) for line in lines] == [("champion", "ann"), ("demoted", "ann")]
    assert lines[0].reasons == ("the new one misses crashes",)


def test_two_decisions_at_the_same_venue_time_are_two_facts() -> None:
    of = governor()
    admit(of, 20, sharpe=1.0)
    name = preset_id(a_preset(20))

    said = [
        of.demote_by_hand("preset", name, "a try", "ann", at(5_000)),
        of.promote_by_hand("preset", name, "back again", "ann", at(5_000)),
        of.demote_by_hand("preset", name, "no, really", "ann", at(5_000)),
    ]

    keys = [message.key for ruling in said for message in ruling.messages]
    assert len(set(keys)) == len(keys) == 6


def test_what_is_no_champion_cannot_be_demoted_and_strangers_cannot_be_promoted() -> None:
    of = governor()
    admit(of, 20, sharpe=1.0)
    name = preset_id(a_preset(20))
    with pytest.raises(NeedsOperator, match="is a champion already"):
        of.promote_by_hand("preset", name, "why not", "ann", at(5_000))
    of.demote_by_hand("preset", name, "enough", "ann", at(5_000))
    with pytest.raises(NeedsOperator, match="is demoted, not a champion"):
        of.demote_by_hand("preset", name, "again", "ann", at(5_000))
    with pytest.raises(BadMessage, match="No preset 'x' has applied"):
        of.promote_by_hand("preset", "x", "who", "ann", at(5_000))


def test_live_takes_by_hand_only_what_has_passed_the_gate() -> None:
    of = governor(is_live=True)
    of.on_evidence(answer(order_of(of.on_preset(candidate()))), None)  # its evidence lacks what live asks for

    with pytest.raises(NeedsOperator, match="Live takes only what passed its gate"):
        of.promote_by_hand("preset", preset_id(a_preset()), "I like it", "ann", at(5_000))


# drift


@pytest.mark.parametrize(("seen", "is_demoted"), [(-3.9, False), (-4.1, True)])
def test_a_model_that_drifts_beyond_the_limit_is_demoted(seen: float, is_demoted: bool) -> None:
    of = governor()
    said, content = trained()
    of.on_evidence(answer(order_of(of.on_model(said, content))), None)
    drift = ModelDrifted(
        model_id=said.model_id,
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        expected=-3.0,
        seen=seen,
        bars=500,
        at=at(6_000),
    )

    ruling = of.on_drift(drift)

    assert [type(message) for message in ruling.messages] == ([ModelDemoted, StageChanged] if is_demoted else [])
    if is_demoted:
        assert one(ruling, ModelDemoted).reason == "drift at most 1 nats a bar, was 1.1 over 500 bars"


# the record


def test_everything_that_was_decided_is_one_whole_chain() -> None:
    of = governor(champions=1)
    rulings: list[Ruling] = []
    for entry, sharpe in ((20, 1.0), (30, 2.0), (40, 0.5)):
        opened = of.on_preset(candidate(a_preset(entry)))
        shown = answer(order_of(opened), msgspec.structs.replace(GOOD, sharpe=sharpe))
        rulings += [opened, of.on_evidence(shown, None)]
    rulings.append(of.demote_by_hand("preset", preset_id(a_preset(30)), "enough", "ann", at(5_000)))

    lines = [message for ruling in rulings for message in ruling.messages if isinstance(message, StageChanged)]

    assert [line.after for line in lines] == [
        *("candidate", "champion"),
        *("candidate", "champion", "demoted"),
        *("candidate", "refused"),
        "demoted",
    ]
    assert verify(lines) == (of.head, None)


def test_a_governor_that_read_back_what_it_kept_goes_on_as_if_it_had_not_stopped() -> None:
    before, after = governor(), governor()
    waiting = before.on_preset(candidate(a_preset(20)))
    rulings = [waiting, admit(before, 30, 2.0)]
    kept = {(a.kind, a.subject_id): a for ruling in rulings for a in ruling.changed}
    after.recover(kept.values(), [("momentum", "BTC-USDT", "1m", 24)], before.head)

    verdicts = [of.on_evidence(answer(order_of(waiting)), None).messages for of in (before, after)]

    assert verdicts[0] == verdicts[1] != []
