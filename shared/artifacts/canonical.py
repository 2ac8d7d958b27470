"""One spelling for each value: sorted keys, no spaces, shortest floats. So equal things have equal hashes."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec

from shared.contracts.errors import BadMessage

T = TypeVar("T", bound=msgspec.Struct)

MAX_BLOB_BYTES = 512 * 1024  # what the bus's artifact bucket takes


def canonical_json(value: object) -> bytes:
    """The one JSON spelling of this value. NaN and infinity become null."""
    return msgspec.json.encode(value, order="sorted")


def from_canonical_json(blob: bytes, kind: type[T]) -> T:
    """The value in these bytes. Raises BadMessage unless they are exactly its canonical spelling."""
    expect_size(blob, kind.__name__)
    try:
        value = msgspec.json.decode(blob, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadMessage(f"Expected {kind.__name__} as canonical JSON, could not read it: {error}") from error
    if canonical_json(value) != blob:
        raise BadMessage(
            f"{kind.__name__} must be canonical JSON (sorted keys, no spaces, each key once): "
            "its id is the hash of its bytes. Write it with canonical_json."
        )
    return value


def content_id(blob: bytes) -> str:
    """The name of these bytes: their SHA-256 in hex."""
    return hashlib.sha256(blob).hexdigest()


def expect_size(blob: bytes, what: str) -> None:
    """Raises BadMessage when this is more than an artifact may be."""
    if len(blob) > MAX_BLOB_BYTES:
        raise BadMessage(f"{what} must be at most {MAX_BLOB_BYTES:,} bytes, was {len(blob):,}.")
