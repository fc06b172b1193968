"""Door: passkeys (W3C Web Authentication Level 3, sections 7.1 and 7.2), verified by python-fido2.

Asked for are a discoverable credential and a person who was verified; what kind of authenticator it is, is not asked:
attestation would tell us more of people than we need.
"""

from __future__ import annotations

import json
import struct
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fido2 import cbor
from fido2.cose import ES256, CoseKey, EdDSA, RS256
from fido2.server import Fido2Server
from fido2.utils import websafe_decode, websafe_encode
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    CollectedClientData,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)
from pydantic import BaseModel, ConfigDict, Field

from authpipe_gateway_authority.domain.signing_in import NewPasskey, Signed
from authpipe_gateway_authority.errors import SignInError

# The algorithms that authenticators in use have (section 5.8.5 and its registry): ES256, Ed25519, RS256.
_ALGORITHMS: tuple[type[CoseKey], ...] = (ES256, EdDSA, RS256)
# What a parser of CBOR, COSE, base64url and JSON raises at what is none of it.
_MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError, struct.error, RecursionError)
_LONGEST = 16 * 1024
Base64Url = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*=*$", max_length=_LONGEST)]
_LONGEST_ID = 1023


class WebAuthn:
    """Web Authentication for one origin.

    Args:
        origin: The dashboard's origin, "https://dashboard.example"; its host is the Relying Party's id.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        host = urlsplit(origin).hostname
        if not host or not origin.startswith("https://"):
            raise SystemExit("The dashboard's URL has to begin with https:// and to name a host.")
        self._server = Fido2Server(
            PublicKeyCredentialRpEntity(name="Authpipe", id=host), verify_origin=lambda named: named == origin
        )
        self._server.allowed_algorithms = [
            PublicKeyCredentialParameters(type=PublicKeyCredentialType.PUBLIC_KEY, alg=each.ALGORITHM)
            for each in _ALGORITHMS
        ]

    def creation(self, challenge: bytes, member_id: str, email: str, workspace: str) -> str:
        """Gives PublicKeyCredentialCreationOptionsJSON (section 5.1.9)."""
        user = PublicKeyCredentialUserEntity(name=f"{email} ({workspace})", id=member_id.encode(), display_name=email)
        options, _ = self._server.register_begin(
            user,
            resident_key_requirement=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
            challenge=challenge,
        )
        return json.dumps(dict(options)["publicKey"])

    def request(self, challenge: bytes) -> str:
        """Gives PublicKeyCredentialRequestOptionsJSON (section 5.1.9)."""
        options, _ = self._server.authenticate_begin(
            user_verification=UserVerificationRequirement.REQUIRED, challenge=challenge
        )
        return json.dumps(dict(options)["publicKey"])

    def read_new(self, credential: str) -> Signed:
        """Reads RegistrationResponseJSON.

        Raises:
            SignInError: It is malformed.
        """
        try:
            read = _NewCredential.model_validate_json(_bounded(credential))
            whole = cbor.decode(websafe_decode(read.response.attestationObject))
            # An integer in the place of bytes would be taken for how many of them there are to be.
            if not isinstance(whole, dict) or not isinstance(whole.get("authData"), bytes):
                raise SignInError
            response = RegistrationResponse.from_dict(read.model_dump())
            return _signed(response, response.response.client_data, b"")
        except _MALFORMED:
            raise SignInError from None

    def read(self, credential: str) -> Signed:
        """Reads AuthenticationResponseJSON.

        Raises:
            SignInError: It is malformed.
        """
        try:
            read = _Credential.model_validate_json(_bounded(credential))
            response = AuthenticationResponse.from_dict(read.model_dump())
            return _signed(response, response.response.client_data, bytes(response.response.user_handle or b""))
        except _MALFORMED:
            raise SignInError from None

    def verify_new(self, signed: Signed) -> NewPasskey:
        """Verifies a new passkey (section 7.1).

        Raises:
            SignInError: It does not.
        """
        try:
            data = self._server.register_complete(_state(signed), signed.response)  # type: ignore[arg-type]  # as read above
            made = data.credential_data
        except _MALFORMED:
            raise SignInError("SIGNATURE_INVALID") from None
        # An algorithm that was not asked for is not taken (section 7.1, step 20).
        if made is None or not isinstance(made.public_key, _ALGORITHMS):
            raise SignInError("PASSKEY_MALFORMED")
        if made.credential_id != signed.credential_id or len(made.credential_id) > _LONGEST_ID:
            raise SignInError("PASSKEY_MALFORMED")
        return NewPasskey(bytes(made.credential_id), bytes(made), data.counter)

    def verify(self, signed: Signed, credential: bytes) -> int:
        """Verifies a signature (section 7.2); gives the passkey's count.

        Raises:
            SignInError: It does not.
        """
        try:
            known = AttestedCredentialData(credential)
            self._server.authenticate_complete(_state(signed), [known], signed.response)  # type: ignore[arg-type]  # as read above
            response: Any = signed.response
            return int(response.response.authenticator_data.counter)
        except _MALFORMED:
            raise SignInError("SIGNATURE_INVALID") from None


class _Read(BaseModel):
    """JSON of a browser: what we need of it, text in base64url alone; what else is in there is not looked at."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Attested(_Read):
    clientDataJSON: Base64Url  # noqa: N815  # the specification's names
    attestationObject: Base64Url  # noqa: N815


class _NewCredential(_Read):
    id: Base64Url
    rawId: Base64Url  # noqa: N815
    type: Literal["public-key"]
    response: _Attested


class _Asserted(_Read):
    clientDataJSON: Base64Url  # noqa: N815
    authenticatorData: Base64Url  # noqa: N815
    signature: Base64Url
    userHandle: Base64Url | None = None  # noqa: N815


class _Credential(_Read):
    id: Base64Url
    rawId: Base64Url  # noqa: N815
    type: Literal["public-key"]
    response: _Asserted


def _bounded(credential: str) -> str:
    if len(credential) > _LONGEST:
        raise SignInError
    return credential


def _signed(
    response: RegistrationResponse | AuthenticationResponse, client_data: CollectedClientData, user: bytes
) -> Signed:
    # Our page is in no frame of a stranger's (section 7.2, step 13).
    if client_data.cross_origin is not False:
        raise SignInError("SIGNATURE_INVALID")
    return Signed(response.raw_id, user, client_data.challenge, response)


def _state(signed: Signed) -> dict[str, Any]:
    # The challenge was found to be ours, unused and for this purpose before.
    return {
        "challenge": websafe_encode(signed.challenge),
        "user_verification": UserVerificationRequirement.REQUIRED,
    }
