"""The controller's three routes: register, ask, teach. Asking changes nothing, teaching twice teaches once."""

from __future__ import annotations

from typing import Any

import pytest

from shared.artifacts.presets import preset_from_bytes, preset_id
from shared.contracts.wire import message_id

from .conftest import DEFAULT, House, a_preset, play, promoted, reading, trade

PLAIN = {"bull": 0.7, "bear": 0.1, "chop": 0.2, "volatility": -0.5}
FEATURES = {f"features[{name}]": str(value) for name, value in PLAIN.items()}
OWN = "/preset/register/momentum/BTC-USDT"
ASK = "/param/momentum/BTC-USDT"


async def admit(house: House, entry: int) -> str:
    """A preset is promoted, and the controller has taken it in."""
    said = promoted(entry)
    await house.promote(said)
    return said.preset_id


async def test_a_registered_preset_becomes_a_candidate_made_by_hand(house: House) -> None:
    await house.up()
    await play(house, range(1))
    async with house.client() as client:
        answers = [await client.post(OWN, json={"preset_id": "calm", "params": {"entry": 55}}) for _ in range(2)]
        other = await client.post(OWN, json={"preset_id": "calm", "params": {"entry": 56}})

    await house.until(lambda: bool(house.candidates))

    assert [answer.status_code for answer in answers] == [200, 200]
    (said,) = house.candidates  # registering it again changed nothing
    assert said.preset_id == answers[0].json()["preset_id"]
    assert (said.origin, said.trials, said.test) == ("manual", 0, None)
    assert said.proposed_at == reading(0).happened_at
    assert preset_from_bytes(said.preset, said.preset_id).params["entry"] == 55
    assert preset_from_bytes(said.preset, said.preset_id).params["exit"] == DEFAULT.params["exit"]
    assert other.status_code == 409 and "take another name" in other.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (OWN, {"preset_id": "x", "params": {"entry": 4000}}, 422, "entry must be within 5..400, was 4000"),
        (OWN, {"preset_id": "x", "params": {"entri": 30}}, 422, "did you mean 'entry'?"),
        (OWN, {"preset_id": "x/y", "params": {}}, 422, "preset_id"),
        ("/preset/register/momentun/BTC-USDT", {"preset_id": "x", "params": {}}, 404, "traded here are momentum"),
        ("/preset/register/momentum/BTCUSDT", {"preset_id": "x", "params": {}}, 422, "must look like BTC-USDT"),
        (OWN + "?timeframe=7m", {"preset_id": "x", "params": {}}, 422, "A timeframe must be one of"),
    ],
)
async def test_a_wrong_registration_is_refused_with_what_was_expected(
    house: House, path: str, body: dict[str, Any], status: int, says: str
) -> None:
    await house.up()
    async with house.client() as client:
        answer = await client.post(path, json=body)

    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert house.candidates == []


async def test_changing_needs_the_token_and_asking_does_not(house: House) -> None:
    await house.up()
    async with house.client(token="") as client:
        refused = [
            await client.post(OWN, json={"preset_id": "x", "params": {}}),
            await client.post("/learn/outcome/momentum/BTC-USDT/x", json={"reward": 1.0}),
        ]
        asked = await client.get("/api/v1" + ASK)

    assert [answer.status_code for answer in refused] == [401, 401]
    assert asked.status_code == 200


async def test_within_an_epoch_the_answer_is_its_decision_whatever_features_are_sent(house: House) -> None:
    await house.up()
    await house.promote(promoted(30))
    await play(house, range(3))
    decision = house.decisions[0]
    async with house.client() as client:
        answers = [(await client.get(ASK)).json(), (await client.get(ASK, params=FEATURES)).json()]
        await play(house, range(3, 6))
        next_one = (await client.get(ASK)).json()

    assert answers[0] == answers[1]
    assert answers[0]["config_id"] == decision.preset_id
    assert answers[0]["decision_id"] == decision.decision_id
    assert answers[0]["propensities"] == decision.propensities
    assert answers[0]["features_used"] == {"bias": 1.0, "bull": 1.0, "bear": 0.0, "chop": 0.0, "volatility": 0.25}
    assert next_one["decision_id"] == house.decisions[1].decision_id != decision.decision_id


async def test_before_the_first_epoch_features_decide_and_asking_again_gives_the_same(house: House) -> None:
    await house.up()
    await admit(house, 30)
    async with house.client() as client:
        answers = [(await client.get(ASK, params=FEATURES)).json() for _ in range(3)]
        without = (await client.get(ASK)).json()

    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["features_used"] == {"bias": 1.0, **PLAIN}  # the context arrives whole
    assert set(answers[0]["propensities"]) == {preset_id(DEFAULT), preset_id(a_preset(30))}
    assert without["features_used"]["bull"] == 0.0
    assert without["decision_id"] != answers[0]["decision_id"]
    assert house.decisions == []  # asking has no effects


@pytest.mark.parametrize(
    "query",
    [
        {"features[bull]": "high"},
        {"features[bull]": "nan", "features[bear]": "0", "features[chop]": "0", "features[volatility]": "0"},
        {"features[bull]": "1"},
        {**FEATURES, "features[mood]": "1"},
        {"bull": "1"},
    ],
)
async def test_features_that_cannot_be_used_are_an_error_and_never_dropped(house: House, query: dict[str, str]) -> None:
    await house.up()
    async with house.client() as client:
        assert (await client.get(ASK, params=query)).status_code == 422


async def test_an_outcome_is_learned_once_and_moves_the_odds(house: House) -> None:
    await house.up()
    good = await admit(house, 30)
    async with house.client() as client:
        before = (await client.get(ASK, params=FEATURES)).json()
        lesson = {"reward": 2.0, "features": PLAIN, "decision_id": before["decision_id"]}
        learned = [
            (await client.post(f"/learn/outcome/momentum/BTC-USDT/{good}", json=lesson)).json() for _ in range(3)
        ]
        after = (await client.get(ASK, params=FEATURES)).json()
    await house.until(lambda: bool(house.outcomes))

    assert [one["applied"] for one in learned] == [True, False, False]
    assert [one["lessons"] for one in learned] == [1, 1, 1]
    assert after["propensities"][good] > before["propensities"][good] == pytest.approx(0.5, abs=1e-6)
    assert after["decision_id"] != before["decision_id"]
    assert len(house.outcomes) == 1


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_an_epochs_outcome_told_by_somebody_else_is_not_learned_again_at_its_end(
    house: House, is_restarted: bool
) -> None:
    await house.up()
    await play(house, range(3))
    (decision,) = house.decisions
    async with house.client() as client:
        path = f"/learn/outcome/momentum/BTC-USDT/{decision.preset_id}"
        told = await client.post(path, json={"reward": 1.0, "decision_id": decision.decision_id})
        wrong = await client.post(
            f"/learn/outcome/momentum/BTC-USDT/{await admit(house, 30)}",
            json={"reward": 1.0, "decision_id": decision.decision_id + "x"},
        )
    if is_restarted:
        await house.down()
        await house.up()
    await play(house, range(3, 8))

    assert told.json()["applied"] is True
    assert wrong.status_code == 200  # a decision of somebody else's is somebody else's
    assert [one.reward for one in house.outcomes if one.decision_id == decision.decision_id] == [1.0]
    assert len(house.decisions) == 2


async def test_teaching_a_stranger_or_another_decisions_preset_is_refused(house: House) -> None:
    await house.up()
    await house.promote(promoted(30))
    await play(house, range(3))
    (decision,) = house.decisions
    (other,) = {preset_id(DEFAULT), preset_id(a_preset(30))} - {decision.preset_id}
    async with house.client() as client:
        stranger = await client.post("/learn/outcome/momentum/BTC-USDT/nobody", json={"reward": 1.0})
        mixed = await client.post(
            f"/learn/outcome/momentum/BTC-USDT/{other}", json={"reward": 1.0, "decision_id": decision.decision_id}
        )
        wild = await client.post(f"/learn/outcome/momentum/BTC-USDT/{other}", json={"reward": 1e9})

    assert [stranger.status_code, mixed.status_code, wild.status_code] == [404, 409, 422]


async def test_a_trade_delivered_twice_is_earned_once(house: House) -> None:
    await house.up()
    await play(house, range(3))
    closed = trade(3, 0.5, house.decisions[0])
    await house.tell(closed)
    await house.until(lambda: house.progress is not None and message_id(closed) in house.progress.booked)
    await house.down()
    house.server.seen["EXEC"].clear()  # the stream has forgotten that it has this one, and takes it again
    await house.up()
    await house.tell(closed)
    await play(house, range(4, 8))

    (outcome,) = house.outcomes
    assert outcome.reward == pytest.approx(0.5 + ((int(outcome.preset_id[:6], 16) + 7 * 4) % 200 - 100) / 100)
