"""What was spoiled and then hashed and signed anew is a sound model or refused: a slice of the campaign."""

from __future__ import annotations

import pytest

from shared.artifacts.models import BYTES, FLOATS
from tests.pure.artifacts.mutations import SPOIL_ARRAYS, SPOIL_FILES, case, faults_of, tried
from tests.pure.artifacts.test_models import any_model

CASES = 2_500  # a slice of 100,000: `just mutation-campaign`


@pytest.mark.campaign
def test_no_spoiled_artifact_loads_unsound_and_none_crashes_the_loader() -> None:
    kinds, faults, loaded = set[str](), dict[int, str](), 0
    for number in range(CASES):
        one = case(number)
        result = tried(one)
        kinds.add(one.kind)
        loaded += result.is_loaded
        if result.fault:
            faults[number] = result.fault
    assert faults == {}
    assert 0.05 * CASES < loaded < 0.5 * CASES, "some spoiling leaves a sound model, else nothing is tried"
    assert kinds == {*SPOIL_ARRAYS, *SPOIL_FILES, "manifest"}


@pytest.mark.parametrize("name", FLOATS)
def test_the_campaigns_own_rules_see_a_number_that_is_none_in_every_field(name: str) -> None:
    model = any_model()
    assert faults_of(model) == [] and set(FLOATS).isdisjoint(BYTES)

    def spoiled(numbers: object) -> object:
        return (*map(spoiled, numbers),) if isinstance(numbers, tuple) else float("nan")

    assert any(name in fault for fault in faults_of(model._replace(**{name: spoiled(getattr(model, name))})))
