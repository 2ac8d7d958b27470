"""A regime model as bytes: an `npz` without pickle for what decides, a JSON manifest for what people should know.

The model's id is the SHA-256 of the npz, and all that decides is inside it, names and feature schema included.
Equal models have equal bytes. What comes back is checked before it is believed: size, hash, names, types, shapes,
and then, as a model, that every number is finite, every row of odds sums to 1, every scale is positive definite.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from shared.artifacts.canonical import canonical_json, content_id, expect_size, from_canonical_json
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Span
from shared.contracts.regime import RegimeName
from shared.regimes.hmm import RegimeModel, regime_model, start_filter, step_filter
from shared.regimes.labels import NAMES

# In the order in which they lie in the file. `labels` counts in BULL, BEAR, CHOP; `feature_schema` is ASCII.
FLOATS = ("start", "transition", "restart", "means", "scales", "tails", "temperature", "center", "spread")
BYTES = ("labels", "feature_schema")
HEADER = re.compile(r"\{'descr': '([<|>=]?[a-zA-Z]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n")


How = Literal["cold", "warm", "stepwise"]


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a model comes from and how it did. It decides nothing; the governor judges by evidence of its own.

    What has a default came later: a manifest without it keeps its bytes.
    """

    model_id: str  # SHA-256 of the npz
    venue: str
    symbol: str
    timeframe: str
    feature_schema: str
    labels: tuple[RegimeName, ...]  # of its states, by index: the map from states to names
    how: How = "cold"  # from seeded starts; or from the model before, whole or by news
    trained_on: Span
    held_out: Span  # bars after those it was fitted on
    scores: dict[str, float]  # on the held-out rows: log_likelihood a bar, that of one Gaussian, ...
    seed: int
    starts: int  # random starts tried, of which the best was taken
    tag: str  # what a person wrote beside it
    is_synthetic: bool  # fitted on made-up bars: never live
    code_version: str
    trained_at: datetime  # venue time
    chunks: tuple[Span, ...] = ()  # the stored parts that held `trained_on`; its newest bars may lie in none yet
    window: str = ""  # "sliding" or "expanding"
    matched_to: str = ""  # the version whose names its own were matched with
    agreement: float | None = None  # fraction of the held-out bars that both name alike
    signature: str = ""  # HMAC-SHA256 (hex) over all of the above, see signing.py


def model_bytes(model: RegimeModel) -> bytes:
    """The npz of this model; equal models, equal bytes."""
    arrays: dict[str, npt.NDArray[np.generic]] = {name: np.array(getattr(model, name), dtype="<f8") for name in FLOATS}
    arrays["labels"] = np.array([NAMES.index(label) for label in model.labels], dtype="|u1")
    arrays["feature_schema"] = np.frombuffer(model.feature_schema.encode("ascii"), dtype="|u1")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # the first day of zip's calendar, not today's
            entry.create_system = 3  # zip would write the machine's own
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            archive.writestr(entry, content.getvalue())
    return file.getvalue()


def manifest_bytes(manifest: ModelManifest) -> bytes:
    """The manifest's canonical JSON, as it travels in events."""
    return canonical_json(manifest)


def manifest_from_bytes(blob: bytes) -> ModelManifest:
    """The manifest in these bytes. Raises BadMessage when they are not one."""
    return from_canonical_json(blob, ModelManifest)


def load_model(blob: bytes, expected_id: str) -> RegimeModel:
    """The model in these bytes, if they are the expected ones and a sound model; else BadMessage says what is wrong."""
    expect_size(blob, "A model")
    if content_id(blob) != expected_id:
        raise BadMessage(f"Expected the model {expected_id}, its bytes have the SHA-256 {content_id(blob)}.")
    arrays = _arrays(blob)
    try:
        model = regime_model(
            start=arrays["start"].tolist(),
            transition=arrays["transition"].tolist(),
            means=arrays["means"].tolist(),
            scales=arrays["scales"].tolist(),
            labels=_names(arrays["labels"].tolist()),
            center=arrays["center"].tolist(),
            spread=arrays["spread"].tolist(),
            tails=arrays["tails"].tolist(),
            restart=_scalar("restart", arrays),
            temperature=_scalar("temperature", arrays),
            feature_schema=arrays["feature_schema"].tobytes().decode("ascii"),
        )
        _expect_it_reads(model)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise BadMessage(f"Model {expected_id[:12]} cannot be used: {error}.") from error
    return model


def _expect_it_reads(model: RegimeModel) -> None:
    """Raises an error unless the filter has a posterior in the middle of what the model was fitted on: numbers that are
    finite each by itself may still overflow together, and that would show on the first bar, in the engine.
    """
    state = start_filter()
    for away in (-1.0, 0.0, 1.0):
        state = step_filter(model, state, tuple(c + away * s for c, s in zip(model.center, model.spread, strict=True)))
        if not all(map(math.isfinite, (*state.posterior, state.log_likelihood))):
            raise ValueError(f"its posterior must be finite {away:+g} spreads from its center, was {state.posterior}")


def _scalar(name: str, arrays: dict[str, npt.NDArray[np.generic]]) -> float:
    if arrays[name].shape != ():
        raise ValueError(f"{name} must be one number, had the shape {arrays[name].shape}")
    return float(arrays[name].item())


def _names(indices: Iterable[int]) -> tuple[RegimeName, ...]:
    try:
        return tuple(NAMES[index] for index in indices)
    except (IndexError, TypeError) as error:
        raise ValueError(f"labels must count in {', '.join(NAMES)}: {error}") from error


def _arrays(blob: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of an npz, exactly those that a model has. Nothing is unpacked that was not measured before."""
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            entries = archive.infolist()
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            if names != [*FLOATS, *BYTES]:
                raise BadMessage(f"A model must hold {', '.join((*FLOATS, *BYTES))}, held {', '.join(names)[:200]}.")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(blob) for entry in entries):
                raise BadMessage("A model's arrays must be stored as they are: compressed ones could be of any size.")
            return {name: _array(name, archive.read(entry)) for name, entry in zip(names, entries, strict=True)}
    except BadMessage:
        raise
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        OSError,
        RuntimeError,
        struct.error,
        ValueError,
    ) as error:
        raise BadMessage(f"Expected a model as npz, could not read it: {error}.") from error


def _array(name: str, content: bytes) -> npt.NDArray[np.generic]:
    """One npy file of format 1.0, little-endian, C order; its shape must account for every byte."""
    length = int.from_bytes(content[8:10], "little")
    header = HEADER.fullmatch(content[10 : 10 + length].decode("latin-1"))
    if content[:8] != b"\x93NUMPY\x01\x00" or header is None:
        raise BadMessage(f"{name} must be a plain npy array, its header was {content[:80]!r}.")
    dtype = "<f8" if name in FLOATS else "|u1"
    if header[1] != dtype:
        raise BadMessage(f"{name} must be of type {dtype}, was {header[1]}.")
    shape = tuple(int(n) for n in header[2].split(",") if n.strip())
    data = content[10 + length :]
    if math.prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise BadMessage(f"{name} has {len(data)} bytes of numbers and says that its shape is ({header[2]}).")
    return np.frombuffer(data, dtype=dtype).reshape(shape)
