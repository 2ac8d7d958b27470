"""What holds for every message: golden bytes, a place in the table, and no harm from what is malformed."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.server import rights
from shared.contracts import subjects
from shared.contracts.errors import BadMessage
from shared.contracts.handbook import handbook
from shared.contracts.market import BarClosed
from shared.contracts.subjects import SERVICES, STREAMS, SUBJECTS, subject_of
from shared.contracts.wire import Message, as_json, message_id, open_envelope, pack, unpack, wrap
from tests.pure.contracts.samples import GOLDEN, SAMPLES, golden

ROOT = Path(__file__).parents[3]
by_name = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)


def test_every_message_of_the_table_has_a_sample() -> None:
    assert {subject.message for subject in SUBJECTS} == {type(sample) for sample in SAMPLES}


def test_the_bytes_of_every_message_are_those_of_the_golden_file() -> None:
    assert golden() == json.loads(GOLDEN.read_text(encoding="utf-8")), "if the change is meant: just golden"


@by_name
def test_decoding_undoes_encoding(sample: Message) -> None:
    envelope = unpack(pack(wrap(sample, "test")))

    assert open_envelope(envelope, type(sample)) == sample


@by_name
def test_a_message_knows_its_own_subject_and_its_id_never_changes(sample: Message) -> None:
    subject = subject_of(sample)

    assert subject.of(sample).startswith(subject.root)
    assert message_id(sample) == message_id(msgspec.convert(msgspec.to_builtins(sample), type(sample), strict=False))


@by_name
def test_people_can_read_it_as_json(sample: Message) -> None:
    envelope = wrap(sample, "test")

    assert json.loads(as_json(envelope, sample))["id"] == envelope.id


def test_what_is_caused_by_a_bar_carries_the_bars_id_as_its_correlation() -> None:
    bar, decision, fill = SAMPLES[0], SAMPLES[17], SAMPLES[25]
    begun = wrap(bar, "ingester")
    decided = wrap(decision, "param_controller", begun)
    filled = wrap(fill, "engine", decided)

    assert begun.correlation == decided.correlation == filled.correlation == message_id(bar)
    assert filled.cause == message_id(decision)


def test_a_thousand_mutations_of_each_message_are_read_rightly_or_refused_and_crash_nothing() -> None:
    chance = random.Random(5)
    refused = decoded = 0
    for sample in SAMPLES:
        original = pack(wrap(sample, "test"))
        for _ in range(1000):
            mutated = bytearray(original)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(mutated))
                match chance.randrange(3):
                    case 0:
                        mutated[at] = chance.randrange(256)
                    case 1:
                        del mutated[at]
                    case _:
                        mutated.insert(at, chance.randrange(256))
            try:
                message = open_envelope(unpack(bytes(mutated)), type(sample))
            except BadMessage as error:
                assert str(error)
                refused += 1
            else:
                assert message == sample, "what is taken is what was said"
                decoded += 1
    assert refused + decoded == 1000 * len(SAMPLES)
    assert decoded < refused / 100  # a byte written over by itself


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_a_bad_message_and_nothing_worse(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        open_envelope(unpack(payload), BarClosed)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"high": 99.0}, "low <= open, close <= high"),
        ({"low": float("nan")}, "0 < low"),
        ({"volume": -1.0}, "0 <= volume"),
        ({"volume": float("inf")}, "0 <= volume"),
        ({"symbol": "BTC/USDT"}, "letters, digits"),
        ({"closed_at": SAMPLES[0].happened_at + timedelta(hours=1)}, "closed_at = opened_at"),
    ],
)
def test_a_bar_outside_its_ranges_is_refused_saying_what_was_expected(change: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        msgspec.structs.replace(SAMPLES[0], **change)  # type: ignore[type-var]


def test_a_newer_version_than_we_know_is_refused() -> None:
    envelope = msgspec.structs.replace(wrap(SAMPLES[0], "test"), version=2)

    with pytest.raises(BadMessage, match="understood up to version 1, was 2"):
        open_envelope(envelope, BarClosed)


def test_every_subject_lies_in_exactly_one_stream_with_its_limits() -> None:
    roots = [root for stream in STREAMS for root in stream.roots]

    assert len(roots) == len(set(roots))
    for subject in SUBJECTS:
        if subject.stream is not None:
            assert subject.root.split(".")[0] in subject.stream.roots
    days = {stream.name: stream.max_age.days for stream in STREAMS}
    assert (days["MD"], days["EXEC"], days["OPS"]) == (30, 90, 3)
    assert subjects.MD.max_bytes == 2 * 2**30


def test_only_the_governor_may_promote_and_only_the_engine_may_order() -> None:
    may_promote = [s for s in SERVICES if any("promoted" in subject for subject in rights(s)["publish"])]
    may_order = [s for s in SERVICES if any(subject.startswith("order.") for subject in rights(s)["publish"])]

    assert (may_promote, may_order) == (["governor"], ["engine"])


def test_the_handbook_of_messages_is_fresh() -> None:
    assert (ROOT / "docs/messages.md").read_text(encoding="utf-8") == handbook(), "run: just messages"
