"""A campaign against the loader: artifacts are spoiled first and hashed and signed after, as a forger with a key would.

    python -m tests.pure.artifacts.mutations 100000

Each case is made from its number alone. What loads is held against rules that are written here a second time, with
numpy; whatever is refused must be refused as `BadMessage`, and no load may take more than `MOST_BYTES`.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import sys
import tracemalloc
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

from shared.artifacts.canonical import MAX_BLOB_BYTES, canonical_json, content_id
from shared.artifacts.models import BYTES, FLOATS, load_model, manifest_bytes, model_bytes
from shared.artifacts.signing import signed, trusted_manifest
from shared.contracts.errors import BadMessage
from shared.regimes.hmm import RegimeModel, start_filter, step_filter
from shared.regimes.labels import NAMES
from tests.pure.artifacts.test_models import any_manifest, any_model

KEY = b"a key that the forger has as well"
MOST_BYTES = 8 * 1024 * 1024  # of a load, at its peak; an artifact may have 512 KiB
SEED = 20_240_101
STRANGE = (math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1.0, 1e308, -1e308, 5e-324, 1e-160, 1e160, 1.0 + 1e-6)

Arrays = dict[str, np.ndarray[Any, Any]]


class Case(NamedTuple):
    """A spoiled artifact with its manifest, hashed and signed anew."""

    number: int
    kind: str
    blob: bytes
    manifest: bytes


class Result(NamedTuple):
    """What the loader made of a case."""

    is_loaded: bool
    fault: str  # "" when nothing is wrong
    peak: int  # bytes


@np.errstate(all="ignore")
def case(number: int) -> Case:
    """The case of this number: always the same."""
    rng = np.random.default_rng((SEED, number))
    sound, whole = _sound(int(rng.integers(20)), int(rng.integers(1, 7)))
    kinds = (*SPOIL_ARRAYS, *SPOIL_FILES, "manifest")
    kind = kinds[int(rng.integers(len(kinds)))]
    blob = sound
    if kind in SPOIL_ARRAYS:
        arrays = {name: array.copy() for name, array in whole.items()}
        for _ in range(int(rng.integers(1, 3))):
            arrays = SPOIL_ARRAYS[kind](rng, arrays)
        blob = _npz(arrays)
    elif kind in SPOIL_FILES:
        blob = SPOIL_FILES[kind](rng, sound)
    manifest = msgspec.structs.replace(any_manifest(), model_id=content_id(blob))
    told = manifest_bytes(signed(manifest, KEY))
    return Case(number, kind, blob, _other_manifest(rng, told) if kind == "manifest" else told)


@cache
def _sound(seed: int, states: int) -> tuple[bytes, Arrays]:
    """A model before it is spoiled, as bytes and as arrays."""
    blob = model_bytes(any_model(seed, states))
    with np.load(io.BytesIO(blob)) as stored:
        return blob, {name: stored[name] for name in stored.files}


def tried(one: Case) -> Result:
    """Load it as every loader does, and hold what came of it against the rules."""
    model, fault = None, ""
    model_id = content_id(one.blob)
    tracemalloc.start()
    try:
        trusted_manifest(one.manifest, model_id, KEY)
        model = load_model(one.blob, model_id)
    except BadMessage as error:
        fault = "" if str(error) else "it was refused without a word"
    except Exception as error:  # noqa: BLE001  # the campaign's very question
        fault = f"the loader crashed: {error!r}"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    if model is not None:
        fault = "; ".join(faults_of(model))
    if peak > MOST_BYTES:
        fault = f"{fault} the load took {peak} bytes"
    return Result(model is not None, fault, peak)


def faults_of(model: RegimeModel) -> list[str]:
    """What is unsound about a model that was loaded, by rules of our own."""
    faults: list[str] = []
    numbers = {name: np.array(getattr(model, name), dtype=float) for name in FLOATS}
    states, width = len(numbers["start"]), len(numbers["center"])
    shapes = {"start": (states,), "transition": (states, states), "means": (states, width)}
    shapes |= {"center": (width,), "spread": (width,)}
    shapes |= {name: (states, width, width) for name, array in numbers.items() if array.ndim == 3}
    faults += [
        f"{name} has the shape {numbers[name].shape}" for name, shape in shapes.items() if numbers[name].shape != shape
    ]
    faults += [f"{name} is not finite" for name, array in numbers.items() if not np.isfinite(array).all()]
    if faults:
        return faults
    rows = np.vstack([numbers["start"], numbers["transition"]])
    if (rows < 0).any() or np.abs(rows.sum(axis=1) - 1).max() > 1e-8:
        faults.append("a row of odds does not sum to 1")
    for name in shapes:
        if numbers[name].ndim == 3:
            faults += [f"{name} is not positive definite" for matrix in numbers[name] if not _is_definite(matrix)]
    if not (numbers["spread"] > 0).all():
        faults.append("a spread is not above 0")
    if len(model.labels) != states or set(model.labels) - set(NAMES):
        faults.append(f"the labels are {model.labels}")
    posterior = step_filter(model, start_filter(), tuple(numbers["center"].tolist())).posterior
    if not math.isclose(math.fsum(posterior), 1.0):
        faults.append(f"it reads the middle of its own market as {posterior}")
    return faults


def _is_definite(matrix: np.ndarray[Any, Any]) -> bool:
    """Symmetric and positive definite but for rounding, as correlations, so that no unit decides."""
    variances = np.diag(matrix)
    if not (variances > 0).all():
        return False
    with np.errstate(all="ignore"):
        correlations = matrix / np.sqrt(variances)[:, None] / np.sqrt(variances)[None, :]
    if not np.isfinite(correlations).all() or np.abs(correlations - correlations.T).max() > 1e-9:
        return False
    return bool(np.linalg.eigvalsh(correlations).min() > -1e-12)


# -- arrays that are spoiled -----------------------------------------------------------------------------------------


def _some(rng: np.random.Generator, arrays: Arrays, names: tuple[str, ...] = (*FLOATS, *BYTES)) -> str:
    there = [name for name in names if name in arrays and arrays[name].size]
    return there[int(rng.integers(len(there)))] if there else next(iter(arrays))


def _a_number(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """One number becomes a strange one, or nearly what it was."""
    name = _some(rng, arrays, FLOATS)
    spoiled = arrays[name].astype(float)
    at = int(rng.integers(spoiled.size)) if spoiled.size else 0
    near = spoiled.flat[at] * (1.0 + 10.0 ** -rng.integers(1, 17)) if spoiled.size else 0.0
    value = near if rng.random() < 0.3 else STRANGE[int(rng.integers(len(STRANGE)))]
    if spoiled.size:
        spoiled.flat[at] = value
    return {**arrays, name: spoiled}


def _all_numbers(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """A whole array becomes one number, or is scaled."""
    name = _some(rng, arrays, FLOATS)
    value = STRANGE[int(rng.integers(len(STRANGE)))]
    return {**arrays, name: arrays[name] * value if rng.random() < 0.5 else np.full_like(arrays[name], value)}


def _bits(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """Some bits of an array's numbers flip."""
    name = _some(rng, arrays)
    data = bytearray(arrays[name].tobytes())
    for _ in range(int(rng.integers(1, 9))):
        if data:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return {**arrays, name: np.frombuffer(bytes(data), arrays[name].dtype).reshape(arrays[name].shape)}


def _rows(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """The entries of an array change places, or one is taken for another."""
    name = _some(rng, arrays)
    spoiled = arrays[name].copy()
    if rng.random() < 0.5:
        flat = spoiled.reshape(-1)
        rng.shuffle(flat)
    elif spoiled.ndim and len(spoiled):
        spoiled[int(rng.integers(len(spoiled)))] = spoiled[int(rng.integers(len(spoiled)))]
    return {**arrays, name: spoiled}


def _matrices(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """A matrix loses its symmetry, its sign or its rank."""
    deep = tuple(name for name in FLOATS if arrays[name].ndim == 3 and arrays[name].size)
    if not deep:
        return arrays
    name = _some(rng, arrays, deep)
    spoiled = arrays[name].astype(float)
    matrix = spoiled[int(rng.integers(len(spoiled)))]
    if not np.isfinite(matrix).all():  # it was spoiled before, and has no eigenvalues
        return arrays
    match int(rng.integers(5)):
        case 0:
            matrix *= -1.0
        case 1:
            matrix[0, -1] += 10.0 ** -rng.integers(0, 17)
        case 2:
            matrix[...] = np.outer(matrix[0], matrix[0])  # of rank 1
        case 3:
            matrix -= np.eye(len(matrix)) * np.linalg.eigvalsh(matrix).min() * (1.0 + rng.choice([-1e-9, 0.0, 1e-9]))
        case _:
            matrix *= (
                STRANGE[int(rng.integers(len(STRANGE)))] if rng.random() < 0.2 else 10.0 ** rng.integers(-300, 300)
            )
    return {**arrays, name: spoiled}


def _shape(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """An array is of another shape."""
    name = _some(rng, arrays)
    array = arrays[name]
    shapes: list[Callable[[], np.ndarray[Any, Any]]] = [
        lambda: array[:-1] if array.ndim else array,
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: array[None],
        lambda: array[..., None],
        lambda: array.reshape(-1),
        lambda: array[:0] if array.ndim else array,
        lambda: np.asfortranarray(array.T) if array.ndim > 1 else array,
        lambda: array.flat[0] if array.size else array,
        lambda: np.zeros((int(rng.integers(0, 20)),) * int(rng.integers(0, 4)), array.dtype),
        lambda: np.resize(array, (1, int(rng.integers(1, 70_000)))),
    ]
    return {**arrays, name: np.asarray(shapes[int(rng.integers(len(shapes)))]())}


def _type(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """An array is of another type, objects among them."""
    name = _some(rng, arrays)
    types = ("f4", "f2", ">f8", "i8", "u1", "i1", "?", "c16", "U8", "S8", "M8[s]", "O", "V8", "f8,f8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return {**arrays, name: arrays[name].astype(types[int(rng.integers(len(types)))])}
        except (ValueError, TypeError, RuntimeError):  # some types cannot become some others
            return {**arrays, name: np.zeros(arrays[name].shape, "f4")}


def _names(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """An array is missing, too many, under another name, or in another place."""
    names = list(arrays)
    name = names[int(rng.integers(len(names)))]
    match int(rng.integers(4)):
        case 0:
            return {other: array for other, array in arrays.items() if other != name} or arrays
        case 1:
            return {**arrays, "extra": arrays[name]}
        case 2:
            return {f"{other}_" if other == name else other: array for other, array in arrays.items()}
        case _:
            rng.shuffle(names)
            return {other: arrays[other] for other in names}


def _words(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    """Labels that count beyond the names, or another feature schema."""
    name = _some(rng, arrays, BYTES)
    return {**arrays, name: rng.integers(0, 256 if rng.random() < 0.5 else 4, arrays[name].shape).astype("u1")}


SPOIL_ARRAYS: dict[str, Callable[[np.random.Generator, Arrays], Arrays]] = {
    "a number": _a_number,
    "all numbers": _all_numbers,
    "bits": _bits,
    "rows": _rows,
    "matrices": _matrices,
    "shape": _shape,
    "type": _type,
    "names": _names,
    "words": _words,
}


# -- files that are spoiled ------------------------------------------------------------------------------------------


def _npz(arrays: Arrays) -> bytes:
    """These arrays as our own files lie: stored, in order. Objects are pickled, as a forger would."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), version=None, allow_pickle=True)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
    return file.getvalue()


def _flipped(rng: np.random.Generator, sound: bytes) -> bytes:
    """Some bytes are others."""
    spoiled = bytearray(sound)
    for _ in range(int(rng.integers(1, 9))):
        spoiled[int(rng.integers(len(spoiled)))] = int(rng.integers(256))
    return bytes(spoiled)


def _cut(rng: np.random.Generator, sound: bytes) -> bytes:
    """A piece is missing, doubled, or nothing but zeros."""
    first, last = sorted(int(at) for at in rng.integers(0, len(sound) + 1, 2))
    piece = (b"", sound[first:last] * 2, bytes(last - first))[int(rng.integers(3))]
    return sound[:first] + piece + sound[last:]


def _directory(rng: np.random.Generator, sound: bytes) -> bytes:
    """A field of the archive's directory says something else: method, flags, sizes, offsets."""
    spoiled = bytearray(sound)
    marks = [mark.end() for mark in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", sound)]
    at = marks[int(rng.integers(len(marks)))] + int(rng.integers(0, 42))
    value = (0, 1, 8, 12, 99, 0x7FFF, 0xFFFF, 0xFFFFFFFF, int(rng.integers(2**32)))[int(rng.integers(9))]
    patch = struct.pack("<I", value)[: (2, 4)[int(rng.integers(2))]]
    spoiled[at : at + len(patch)] = patch
    return bytes(spoiled[: len(sound)])


def _header(rng: np.random.Generator, sound: bytes) -> bytes:
    """An array's header says another shape, type or order, or is no header at all; the archive itself is whole."""
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = list(entries)[int(rng.integers(len(entries)))]
    shape = ("1000000000, 1000000", "9" * 5000, "-1, 3", "3, 3, ", "0", "", "3" + ", 1" * 5000)[int(rng.integers(7))]
    text = (
        f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape}), }}\n",
        f"{{'descr': '|O', 'fortran_order': False, 'shape': ({shape}), }}\n",
        f"{{'descr': '<f8', 'fortran_order': True, 'shape': ({shape}), }}\n",
        "(" * 20_000,
        "__import__('os').abort()\n",
        "",
    )[int(rng.integers(6))].encode()[:65_000]
    magic = (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"NUMPY\x93\x01\x00")[int(rng.integers(3))]
    entries[name] = magic + struct.pack("<H", len(text)) + text + entries[name][128:]
    return _zip(entries, zipfile.ZIP_STORED)


def _compressed(rng: np.random.Generator, sound: bytes) -> bytes:
    """An archive that would unpack to far more than it is."""
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = list(entries)[int(rng.integers(len(entries)))]
    entries[name] += bytes(int(rng.integers(2 * MAX_BLOB_BYTES)))
    return _zip(entries, (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)[int(rng.integers(2))])


def _something(rng: np.random.Generator, sound: bytes) -> bytes:
    """No archive at all, or one with more around it."""
    noise = rng.bytes(int(rng.integers(0, 2000)))
    return (noise, noise + sound, sound + noise, b"", b"\x80\x04." + noise, bytes(MAX_BLOB_BYTES))[int(rng.integers(6))]


def _zip(entries: dict[str, bytes], method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


SPOIL_FILES: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "flipped": _flipped,
    "cut": _cut,
    "directory": _directory,
    "header": _header,
    "compressed": _compressed,
    "something": _something,
}


def _other_manifest(rng: np.random.Generator, told: bytes) -> bytes:
    """A field of the manifest is something else, and the whole is signed anew as far as it can be."""
    fields: dict[str, Any] = json.loads(told)
    name = list(fields)[int(rng.integers(len(fields)))]
    others: tuple[Any, ...] = (None, -1, 1e308, "", "x" * 100_000, [], {}, [[]] * 1000, {"a": {"b": 1}}, True, "0" * 64)
    match int(rng.integers(5)):
        case 0:
            del fields[name]
        case 1:
            fields["unknown"] = 1
        case 2:
            return _flipped(rng, told)
        case 3:
            return b"[" * int(rng.integers(1, 100_000))
        case _:
            fields[name] = others[int(rng.integers(len(others)))]
    return canonical_json(fields)


def main(count: int, first: int = 0) -> int:
    """Try so many cases, and print what became of them. 1 when one of them shows a fault."""
    loaded, refused, faults, peak = Counter[str](), Counter[str](), 0, 0
    for number in range(first, first + count):
        one = case(number)
        result = tried(one)
        (loaded if result.is_loaded else refused)[one.kind] += 1
        peak = max(peak, result.peak)
        if result.fault:
            faults += 1
            print(f"case {number} ({one.kind}): {result.fault}", flush=True)
    for kind in sorted({*loaded, *refused}):
        print(f"{kind:<12} {loaded[kind]:>7} loaded, and sound  {refused[kind]:>7} refused")
    print(
        f"{count} cases, {loaded.total()} loaded, {refused.total()} refused, {faults} faults, at most {peak:,} bytes a load"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
