"""Where a house has a key, only what was signed with it is a model."""

from __future__ import annotations

import msgspec
import pytest

from shared.artifacts.models import ModelManifest, manifest_bytes
from shared.artifacts.signing import signed, trusted_manifest
from shared.contracts.errors import BadMessage
from tests.pure.artifacts.test_models import any_manifest

KEY, ANOTHER = b"the key of this house", b"the key of another house"


def trusts(manifest: ModelManifest, key: bytes) -> ModelManifest:
    return trusted_manifest(manifest_bytes(manifest), manifest.model_id, key)


def test_what_the_key_signed_the_key_trusts() -> None:
    manifest = signed(any_manifest(), KEY)
    assert trusts(manifest, KEY) == manifest
    assert signed(manifest, KEY) == manifest, "signing twice changes nothing"


def test_the_signature_is_the_one_that_any_hmac_tool_makes() -> None:
    # By the shell: the manifest's canonical JSON without a signature | openssl dgst -sha256 -hmac "the key of this house"
    manifest = msgspec.structs.replace(any_manifest(), feature_schema="trend,volatility/1")
    assert signed(manifest, KEY).signature == ("74d4da2211813cbfcd47017a6997a611590a7c0ea8dc53725d71ef834395eb39")


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (any_manifest(), "has no signature"),
        (signed(any_manifest(), ANOTHER), "has a signature that is not of this key"),
        (msgspec.structs.replace(signed(any_manifest(), KEY), seed=8), "has a signature that is not of this key"),
        (
            msgspec.structs.replace(signed(any_manifest(), KEY), signature="é"),
            "has a signature that is not of this key",
        ),
    ],
)
def test_what_it_did_not_sign_as_it_stands_is_refused_with_what_to_do(manifest: ModelManifest, reason: str) -> None:
    with pytest.raises(BadMessage, match=f"{reason}.* train it again, or set the TRIMTAB_MODEL_KEY"):
        trusts(manifest, KEY)


def test_without_a_key_nothing_is_signed_and_nothing_is_asked_for() -> None:
    assert signed(any_manifest(), b"") == any_manifest()
    for manifest in (any_manifest(), signed(any_manifest(), ANOTHER)):
        assert trusts(manifest, b"") == manifest


def test_the_manifest_of_another_model_vouches_for_nothing() -> None:
    with pytest.raises(BadMessage, match="Expected the manifest of model bbbb"):
        trusted_manifest(manifest_bytes(signed(any_manifest(), KEY)), "b" * 64, KEY)


def test_a_manifest_of_before_there_were_signatures_is_still_canonical() -> None:
    assert b"signature" not in manifest_bytes(any_manifest()) and b"chunks" not in manifest_bytes(any_manifest())
