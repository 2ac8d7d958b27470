"""The wire form: a message inside an envelope, MessagePack for machines and JSON for people.

The envelope says what is inside, when it became true, who said it, which bar began the story (`correlation`) and
which message led to it (`cause`). Its id is made from what the message is about, never drawn: the same fact said
twice has the same id, and whoever hears it twice keeps it once.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import msgspec

from shared.contracts.errors import BadMessage
from shared.contracts.times import to_ms

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what may stand between two dots of a subject
MAX_BYTES = 900_000  # below NATS's max_payload of 1 MiB, headers included


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The base of everything that is said. Once made it is never changed."""

    VERSION: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """What this message is about, in one line: equal keys mean the same fact."""
        raise NotImplementedError

    @property
    def happened_at(self) -> datetime:
        """The venue time at which this became true (UTC)."""
        raise NotImplementedError


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What travels. `body` is the message, still encoded, so that who does not care need not decode it."""

    id: str  # "BarClosed:sim.BTC-USDT.1m.1700000000000"
    type: str  # "BarClosed"
    version: int
    at: int  # ns since 1970 UTC, venue time
    source: str  # the service that said it
    correlation: str  # id of the message that began the story, usually a bar
    cause: str  # id of the message that led to this one; its own id when nothing did
    body: msgspec.Raw
    digest: bytes = b""  # over all of the above: a message that was damaged on the way is not taken for another


M = TypeVar("M", bound=Message)
_encoder = msgspec.msgpack.Encoder()
_envelopes = msgspec.msgpack.Decoder(Envelope)
_decoders: dict[type[Message], msgspec.msgpack.Decoder[Any]] = {}


def message_id(message: Message) -> str:
    """The deterministic id under which this fact travels."""
    return f"{type(message).__name__}:{message.key}"


def wrap(message: Message, source: str, cause: Envelope | None = None) -> Envelope:
    """Put a message into its envelope. What caused it hands its correlation on."""
    own = message_id(message)
    envelope = Envelope(
        id=own,
        type=type(message).__name__,
        version=message.VERSION,
        at=to_ms(message.happened_at) * 1_000_000,
        source=source,
        correlation=own if cause is None else cause.correlation,
        cause=own if cause is None else cause.id,
        body=msgspec.Raw(_encoder.encode(message)),
    )
    return msgspec.structs.replace(envelope, digest=_digest(envelope))


def _digest(said: Envelope) -> bytes:
    head = (said.id, said.type, said.version, said.at, said.source, said.correlation, said.cause)
    return hashlib.blake2b(_encoder.encode(head) + bytes(said.body), digest_size=8).digest()


def pack(envelope: Envelope) -> bytes:
    """The bytes of an envelope. Raises BadMessage above `MAX_BYTES`."""
    payload = _encoder.encode(envelope)
    if len(payload) > MAX_BYTES:
        raise BadMessage(f"{envelope.id} must be at most {MAX_BYTES:,} bytes on the wire, was {len(payload):,}.")
    return payload


def unpack(payload: bytes) -> Envelope:
    """The envelope in these bytes. Raises BadMessage with what was wrong."""
    if len(payload) > MAX_BYTES:
        raise BadMessage(f"A message must be at most {MAX_BYTES:,} bytes, was {len(payload):,}.")
    try:
        envelope = _envelopes.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"Expected an envelope in MessagePack, could not read it: {error}.") from error
    if envelope.digest != _digest(envelope):
        raise BadMessage(f"{envelope.id[:200]} was damaged on the way: its digest is not that of what it says.")
    return envelope


def open_envelope(envelope: Envelope, kind: type[M]) -> M:
    """The message inside. Raises BadMessage on another type, a newer version, or values outside their range."""
    if envelope.type != kind.__name__:
        raise BadMessage(f"Expected {kind.__name__}, was {envelope.type} ({envelope.id}).")
    if envelope.version > kind.VERSION:
        raise BadMessage(
            f"{envelope.type} is understood up to version {kind.VERSION}, was {envelope.version}: "
            f"update the service that reads it."
        )
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        message: M = decoder.decode(envelope.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        raise BadMessage(f"{envelope.type} could not be read: {error}") from error
    if message_id(message) != envelope.id:
        raise BadMessage(f"{envelope.type} is about {message_id(message)!r}, its envelope says {envelope.id!r}.")
    return message


def as_json(envelope: Envelope, message: Message) -> bytes:
    """The same for people: one JSON object, the message under `body`."""
    fields: dict[str, Any] = {field: getattr(envelope, field) for field in Envelope.__struct_fields__}
    return msgspec.json.encode({**fields, "body": message})


def require(holds: bool, message: Message, expected: str) -> None:
    """A range check of a message's values: raises ValueError saying what was expected and what it was."""
    if not holds:
        raise ValueError(f"{type(message).__name__} must satisfy {expected}, was {message!r}"[:500])


def require_token(message: Message, *values: str) -> None:
    """Names that become part of a subject hold letters, digits, `_` and `-` only."""
    for value in values:
        if not TOKEN.fullmatch(value):
            raise ValueError(
                f"{type(message).__name__}: a name must be 1 to 64 of letters, digits, _ and -, was {value!r}"[:300]
            )
