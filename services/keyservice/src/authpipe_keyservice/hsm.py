"""The HSM: KEKs that never leave it, over PKCS#11. The only module that imports pkcs11.

One thread for everything: python-pkcs11 asks the library for no locking, and several sessions on several threads crash
the process (FACTS). Unwraps are rare here, since DEKs are cached; a batch of releases needs none.

The PIN is read into a bytearray, handed to C_Login through ctypes, and overwritten: python-pkcs11 would keep a `str`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import GCMParams
from pkcs11.util.ec import encode_named_curve_parameters

from authpipe_keyservice.errors import HsmUnavailableError, KeyTamperedError

ResultT = TypeVar("ResultT")

_NONCE = 12
_CANARY_LABEL = "canary"
_CANARY_TEXT = b"authpipe canary "
_CKU_USER = 1
_CKF_SERIAL_SESSION, _CKF_RW_SESSION = 4, 2
_OK, _ALREADY_LOGGED_IN = 0, 0x100
# CKR_PIN_INCORRECT, CKR_PIN_LOCKED (PKCS #11, section 5.6).
_PIN_REFUSED = {0xA0, 0xA4}
_PIN_TRIES = 2
_ED25519_POINT_SIZE = 32


class _Key(Protocol):  # python-pkcs11 types what a search finds as a bare Object
    def encrypt(self, data: bytes, *, mechanism: Mechanism, mechanism_param: object) -> bytes: ...
    def decrypt(self, data: bytes, *, mechanism: Mechanism, mechanism_param: object) -> bytes: ...


class Hsm:
    """A token of a PKCS#11 library, opened once, used from one thread.

    Args:
        module: The PKCS#11 library.
        token_label: The token.
        pin_file: The file with its PIN.
    """

    def __init__(self, module: Path, token_label: str, pin_file: Path) -> None:
        self._module = module
        self._token_label = token_label
        self._pin_file = pin_file
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hsm")
        self._pin_refusals = 0
        self._session: pkcs11.Session | None = None
        self._keys: dict[str, _Key] = {}

    async def open(self) -> None:
        """Logs in and makes the canary key if there is none.

        Raises:
            HsmUnavailableError: The library, the token or the PIN does not work. The PIN is tried once.
        """
        await self._do(self._open)

    async def ensure_kek(self, label: str) -> None:
        """Makes a KEK in the token if it is not there: AES-256, sensitive, not extractable (promise P04)."""
        await self._do(lambda: self._ensure_aes(label))

    async def wrap(self, label: str, key: bytes, aad: bytes) -> bytes:
        """Wraps a DEK with a KEK: nonce (12) ‖ AES-256-GCM ciphertext ‖ tag (16)."""

        def work() -> bytes:
            nonce = os.urandom(_NONCE)
            params = GCMParams(nonce=nonce, aad=aad, tag_bits=128)
            return nonce + self._find(label).encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=params)

        return await self._do(work)

    async def unwrap(self, label: str, wrapped: bytes, aad: bytes) -> bytes:
        """Unwraps a DEK.

        A wrong AAD and an outage look alike (GeneralError), so after a failure a known canary is tried: if that opens,
        it was tampering.

        Raises:
            KeyTamperedError: The wrapped key was changed or belongs elsewhere. Not to be retried.
            HsmUnavailableError: The token does not answer.
        """

        def work() -> bytes:
            if len(wrapped) != _NONCE + 32 + 16:
                raise KeyTamperedError
            params = GCMParams(nonce=wrapped[:_NONCE], aad=aad, tag_bits=128)
            key = self._find(label)
            try:
                return key.decrypt(wrapped[_NONCE:], mechanism=Mechanism.AES_GCM, mechanism_param=params)
            except PKCS11Error:
                self._check_canary()
                raise KeyTamperedError from None

        return await self._do(work)

    async def check(self) -> None:
        """Seals and opens the canary; a token that fails is opened anew, and has to open it then.

        Raises:
            HsmUnavailableError: The token does not do what it should.
        """

        def work() -> None:
            try:
                self._check_canary()
            except HsmUnavailableError:
                self._reopen()

        await self._do(work)

    async def ensure_signing_key(self, label: str) -> bytes:
        """Makes an Ed25519 key pair in the token if it is not there, and gives its public key, 32 bytes."""

        def work() -> bytes:
            session = self._require()
            found = list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label}))
            if not found:
                parameters = session.create_domain_parameters(
                    KeyType.EC_EDWARDS,
                    {Attribute.EC_PARAMS: encode_named_curve_parameters("1.3.101.112")},
                    local=True,
                )
                public, _ = parameters.generate_keypair(
                    mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                    store=True,
                    label=label,
                    capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                    private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
                )
                found = [public]
            # The point comes as a DER octet string; the key is its last 32 bytes (FACTS).
            return bytes(found[0][Attribute.EC_POINT])[-_ED25519_POINT_SIZE:]

        return await self._do(work)

    async def sign(self, label: str, message: bytes) -> bytes:
        """Signs with Ed25519 (RFC 8032), 64 bytes."""

        def work() -> bytes:
            session = self._require()
            key = next(
                iter(list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: label})))
            )
            return bytes(cast("Any", key).sign(message, mechanism=Mechanism.EDDSA))

        return await self._do(work)

    async def close(self) -> None:
        """Ends the thread. The login ends with the process."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[[], ResultT]) -> ResultT:
        def guarded() -> ResultT:
            try:
                return work()
            except PKCS11Error:
                self._keys.clear()
                raise HsmUnavailableError from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _open(self) -> None:
        self._connect()
        self._ensure_aes(_CANARY_LABEL)
        self._check_canary()

    def _reopen(self) -> None:
        # The library keeps what it knew of a token that went away until it is initialised anew. No key is made here: a
        # token that came back without the canary is another token.
        self._keys.clear()
        self._session = None
        try:
            pkcs11.lib(str(self._module)).reinitialize()
        except (PKCS11Error, RuntimeError):
            raise HsmUnavailableError from None
        self._connect()
        self._check_canary()

    def _connect(self) -> None:
        try:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self._token_label)
            self._log_in(token.slot.slot_id)
            self._session = token.open(rw=True)
        except (PKCS11Error, RuntimeError, OSError):
            raise HsmUnavailableError from None

    def _log_in(self, slot: int) -> None:
        # A token locks itself after a few wrong PINs: two are enough to know.
        if self._pin_refusals >= _PIN_TRIES:
            raise HsmUnavailableError
        library = ctypes.CDLL(str(self._module))
        session = ctypes.c_ulong()
        flags = ctypes.c_ulong(_CKF_SERIAL_SESSION | _CKF_RW_SESSION)
        if library.C_OpenSession(ctypes.c_ulong(slot), flags, None, None, ctypes.byref(session)) != _OK:
            raise HsmUnavailableError
        pin = bytearray(self._pin_file.stat().st_size)
        with self._pin_file.open("rb", buffering=0) as file:
            size = file.readinto(pin)
        buffer = (ctypes.c_char * len(pin)).from_buffer(pin)
        result = library.C_Login(session, ctypes.c_ulong(_CKU_USER), buffer, ctypes.c_ulong(size))
        del buffer
        pin[:] = bytes(len(pin))
        if result in _PIN_REFUSED:
            self._pin_refusals += 1
        if result not in {_OK, _ALREADY_LOGGED_IN}:
            raise HsmUnavailableError

    def _require(self) -> pkcs11.Session:
        if self._session is None:
            raise HsmUnavailableError
        return self._session

    def _find(self, label: str) -> _Key:
        key = self._keys.get(label)
        if key is None:
            found = list(self._require().get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}))
            # A token folder that was deleted answers 'not found' too: that is never taken for a destroyed KEK.
            if len(found) != 1:
                raise HsmUnavailableError
            key = self._keys[label] = cast("_Key", found[0])
        return key

    def _ensure_aes(self, label: str) -> None:
        session = self._require()
        if not list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label})):
            session.generate_key(
                KeyType.AES,
                256,
                label=label,
                store=True,
                capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.MODIFIABLE: False},
            )

    def _check_canary(self) -> None:
        nonce = os.urandom(_NONCE)
        params = GCMParams(nonce=nonce, aad=b"canary", tag_bits=128)
        try:
            key = self._find(_CANARY_LABEL)
            sealed = key.encrypt(_CANARY_TEXT, mechanism=Mechanism.AES_GCM, mechanism_param=params)
            opened = key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=params)
        except PKCS11Error:
            raise HsmUnavailableError from None
        if opened != _CANARY_TEXT:
            raise HsmUnavailableError
