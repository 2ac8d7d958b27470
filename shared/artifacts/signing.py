"""Who vouches for a model: HMAC-SHA256 over its manifest, which names the parameters by their own SHA-256.

A house with a key (`TRIMTAB_MODEL_KEY`) uses only models that were signed with it: who can write to the bus or to a
file, and has no key, cannot put a model into use. Without a key nothing is signed and nothing is asked for.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from shared.artifacts.models import ModelManifest, manifest_bytes, manifest_from_bytes
from shared.contracts.errors import BadMessage


def signed(manifest: ModelManifest, key: bytes) -> ModelManifest:
    """The manifest with the signature of this key; without one, as it is without a signature."""
    return msgspec.structs.replace(manifest, signature=_signature(manifest, key) if key else "")


def trusted_manifest(blob: bytes, model_id: str, key: bytes) -> ModelManifest:
    """The manifest in these bytes, if it is this model's and, where there is a key, signed with it. Else BadMessage."""
    manifest = manifest_from_bytes(blob)
    if manifest.model_id != model_id:
        raise BadMessage(f"Expected the manifest of model {model_id[:12]}, was that of {manifest.model_id[:12]}.")
    require_signature(manifest, key)
    return manifest


def require_signature(manifest: ModelManifest, key: bytes) -> None:
    """Raises BadMessage where there is a key and the manifest was not signed with it."""
    if key and not hmac.compare_digest(manifest.signature.encode(), _signature(manifest, key).encode()):
        was = "has a signature that is not of this key" if manifest.signature else "has no signature"
        raise BadMessage(
            f"Model {manifest.model_id[:12]} of {manifest.symbol} {was}, and a model key is set here: "
            "train it again, or set the TRIMTAB_MODEL_KEY that it was signed with."
        )


def _signature(manifest: ModelManifest, key: bytes) -> str:
    unsigned = manifest_bytes(msgspec.structs.replace(manifest, signature=""))
    return hmac.new(key, unsigned, hashlib.sha256).hexdigest()
