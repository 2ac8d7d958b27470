"""Models as bytes: the same model, the same bytes; what comes back is the model, or an error that names what is wrong."""

from __future__ import annotations

import io
import struct
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.artifacts.canonical import MAX_BLOB_BYTES, content_id
from shared.artifacts.models import ModelManifest, load_model, manifest_bytes, manifest_from_bytes, model_bytes
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Span
from shared.regimes.features import FEATURE_SCHEMA
from shared.regimes.hmm import RegimeModel, regime_model


def any_model(seed: int = 1, states: int = 3) -> RegimeModel:
    rng = np.random.default_rng(seed)
    roots = rng.normal(0, 1, (states, 4, 4))
    return regime_model(
        rng.dirichlet(np.ones(states)).tolist(),
        rng.dirichlet(np.ones(states), states).tolist(),
        rng.normal(0, 2, (states, 4)).tolist(),
        (roots @ roots.transpose(0, 2, 1) + np.eye(4)).tolist(),
        [("BULL", "BEAR", "CHOP")[k % 3] for k in range(states)],
        [0.0, 0.1, -6.0, 0.0],
        [1.0, 2.0, 0.5, 0.5],
        tails=rng.uniform(0.0, 0.4, states).tolist(),
        restart=rng.uniform(0.0, 0.5),
        temperature=rng.uniform(1.0, 10.0),
    )


def npz(**changes: np.ndarray | None) -> bytes:
    """The bytes of a sound model with some of its arrays changed or left out, hashed anew by whoever forged it."""
    with np.load(io.BytesIO(model_bytes(any_model()))) as sound:
        arrays = {**sound, **changes}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    return file.getvalue()


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_loading_undoes_saving_to_the_last_bit(seed: int, states: int) -> None:
    model = any_model(seed, states)
    blob = model_bytes(model)
    assert load_model(blob, content_id(blob)) == model
    assert model_bytes(load_model(blob, content_id(blob))) == blob


def test_a_model_has_the_same_bytes_on_every_machine() -> None:
    unit = [[1.0 if i == j else 0.0 for j in range(4)] for i in range(4)]
    model = regime_model([1.0], [[1.0]], [[0.0] * 4], [unit], ["CHOP"], [0.0] * 4, [1.0] * 4)
    # Renewed by printing content_id(model_bytes(model)), only when the layout or the feature schema changes on purpose.
    assert content_id(model_bytes(model)) == "5b833e33e1e6d3a0c34fcde23e640068f3cdb8fa3659897e1e2dd2a5eb04c57c"


def test_numpy_reads_it_without_pickle() -> None:
    with np.load(io.BytesIO(model_bytes(any_model())), allow_pickle=False) as arrays:
        assert arrays["means"].shape == (3, 4)
        assert arrays["feature_schema"].tobytes().decode() == FEATURE_SCHEMA


def test_other_bytes_than_promised_are_refused_before_they_are_read() -> None:
    blob = model_bytes(any_model())
    with pytest.raises(BadMessage, match="Expected the model"):
        load_model(blob, content_id(model_bytes(any_model(seed=2))))


def test_a_model_above_the_limit_is_refused() -> None:
    blob = bytes(MAX_BLOB_BYTES + 1)
    with pytest.raises(BadMessage, match="at most 524,288 bytes"):
        load_model(blob, content_id(blob))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"means": np.full((3, 4), np.nan)}, "means must hold finite floats"),
        ({"means": np.zeros((3, 2))}, "means must have 4 entries"),
        ({"means": np.zeros(3)}, "means must hold finite floats in the shape"),
        ({"means": np.zeros((3, 4), "f4")}, "means must be of type <f8"),
        ({"means": np.array([[{}]], dtype=object)}, "means must be a plain npy array"),
        ({"transition": np.full((3, 3), 0.3)}, "transition row 0 must hold odds that sum to 1"),
        ({"scales": -np.stack([np.eye(4)] * 3)}, "positive definite"),
        ({"restart": np.zeros(1)}, "restart must be one number"),
        ({"temperature": np.float64(0.0)}, "temperature must be in"),
        ({"start": np.float64(1.0)}, "cannot be used"),
        ({"labels": np.array([0, 1, 9], "u1")}, "labels must count"),
        ({"labels": np.array([0, 1], "u1")}, "labels must name each of 3 states"),
        ({"feature_schema": np.frombuffer(b"logret/1", "u1")}, "the features must be"),
        ({"spread": None}, "must hold start"),
        ({"extra": np.zeros(1)}, "must hold start"),
    ],
)
def test_a_model_that_is_not_sound_is_refused_by_name(changes: dict[str, np.ndarray | None], expected: str) -> None:
    blob = npz(**changes)
    with pytest.raises(BadMessage, match=expected):
        load_model(blob, content_id(blob))


def test_a_compressed_archive_is_refused_since_it_could_be_of_any_size() -> None:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(model_bytes(any_model()))) as sound,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in sound.namelist():
            bomb.writestr(name, sound.read(name))
    with pytest.raises(BadMessage, match="stored as they are"):
        load_model(file.getvalue(), content_id(file.getvalue()))


def test_a_shape_that_the_bytes_do_not_fill_allocates_nothing() -> None:
    file = io.BytesIO()
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000), }\n"
    with zipfile.ZipFile(io.BytesIO(model_bytes(any_model()))) as sound, zipfile.ZipFile(file, "w") as forged:
        for name in sound.namelist():
            huge = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
            forged.writestr(name, huge if name == "means.npy" else sound.read(name))
    with pytest.raises(BadMessage, match="says that its shape"):
        load_model(file.getvalue(), content_id(file.getvalue()))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_mutated_bytes_are_a_sound_model_or_refused(data: st.DataObject) -> None:
    blob = bytearray(model_bytes(any_model()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] = data.draw(st.integers(0, 255))
    cut = bytes(blob[: data.draw(st.sampled_from([len(blob), len(blob), len(blob) // 2]))])
    try:
        load_model(cut, content_id(cut))
    except BadMessage:
        pass


def any_manifest() -> ModelManifest:
    first, last = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
    span = Span(first=first, last=last, bars=745, data_sha256="0" * 64)
    return ModelManifest(
        model_id="a" * 64,
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1h",
        feature_schema=FEATURE_SCHEMA,
        labels=("BULL", "BEAR", "CHOP"),
        trained_on=span,
        held_out=span,
        scores={"log_likelihood": -3.25},
        seed=7,
        starts=4,
        tag="",
        is_synthetic=False,
        code_version="0.1.0",
        trained_at=last,
    )


def test_a_manifest_comes_back_as_it_was() -> None:
    assert manifest_from_bytes(manifest_bytes(any_manifest())) == any_manifest()


@pytest.mark.parametrize("spoiled", [b"", b"null", b"[]", b'{"model_id":"a"}', b"\xff\xfe"])
def test_what_is_no_manifest_is_refused(spoiled: bytes) -> None:
    with pytest.raises(BadMessage, match="ModelManifest"):
        manifest_from_bytes(spoiled)


def test_a_manifest_in_another_spelling_is_refused() -> None:
    with pytest.raises(BadMessage, match="canonical JSON"):
        manifest_from_bytes(b" " + manifest_bytes(any_manifest()))
