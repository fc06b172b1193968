"""The HSM: KEKs that never leave it, over PKCS#11. The only module that imports pkcs11.

One thread for everything: python-pkcs11 asks the library for no locking, and several sessions on several threads crash
the process (FACTS). Unwraps are rare here, since DEKs are cached; a batch of releases needs none.

The PIN is read into a bytearray, handed to C_Login through ctypes, and overwritten: python-pkcs11 would keep a `str`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import (
    DataInvalid,
    DeviceRemoved,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    GeneralError,
    NoSuchToken,
    ObjectHandleInvalid,
    PinIncorrect,
    PinLocked,
    PKCS11Error,
    SessionClosed,
    SessionCount,
    SessionHandleInvalid,
    TokenNotPresent,
    UserNotLoggedIn,
)
from pkcs11.mechanisms import GCMParams
from pkcs11.util.ec import encode_named_curve_parameters

from authpipe_keyservice.errors import HsmUnavailableError, KeyTamperedError
from authpipe_sensitive import Label

ResultT = TypeVar("ResultT")

_NONCE = 12
_CANARY_LABEL = "canary"
_CANARY_TEXT = b"authpipe canary "
_CKU_USER = 1
_CKF_SERIAL_SESSION, _CKF_RW_SESSION = 4, 2
_OK, _ALREADY_LOGGED_IN = 0, 0x100
# CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_SESSION_COUNT (PKCS #11, section 5.6).
_PIN_INCORRECT, _PIN_LOCKED, _SESSION_COUNT = 0xA0, 0xA4, 0xB1
_PIN_TRIES = 2
# A call of the library that has not come back for so long holds up whoever asks after it no longer.
_SLOW_SECONDS = 2.0
_REOPEN_SECONDS = 1.0
_CAUSES: dict[type[PKCS11Error], Label] = {
    NoSuchToken: Label("token-gone"),
    TokenNotPresent: Label("token-gone"),
    DeviceRemoved: Label("token-gone"),
    SessionHandleInvalid: Label("session-ended"),
    SessionClosed: Label("session-ended"),
    UserNotLoggedIn: Label("session-ended"),
    ObjectHandleInvalid: Label("key-not-found"),
    SessionCount: Label("sessions-exhausted"),
    PinIncorrect: Label("pin-refused"),
    PinLocked: Label("pin-locked"),
}
_ED25519_POINT_SIZE = 32


class _Key(Protocol):  # python-pkcs11 types what a search finds as a bare Object
    def destroy(self) -> None: ...
    def encrypt(self, data: bytes, *, mechanism: Mechanism, mechanism_param: object) -> bytes: ...
    def decrypt(self, data: bytes, *, mechanism: Mechanism, mechanism_param: object) -> bytes: ...


_THREADS: dict[Path, ThreadPoolExecutor] = {}


class Hsm:
    """A token of a PKCS#11 library, opened once, used from one thread.

    Args:
        module: The PKCS#11 library.
        token_label: The token.
        pin_file: The file with its PIN.
        foreign: Whether it is a customer's: it has no canary, and is never opened anew over our own.
    """

    def __init__(self, module: Path, token_label: str, pin_file: Path, *, foreign: bool = False) -> None:
        self._module = module
        self._token_label = token_label
        self._pin_file = pin_file
        # Two tokens of one library share its one thread.
        self._thread = _THREADS.setdefault(module, ThreadPoolExecutor(max_workers=1, thread_name_prefix="hsm"))
        self._foreign = foreign
        self._pin_refusals = 0
        self._refused_pin: tuple[int, int] | None = None
        self._busy_since: float | None = None
        self._reopened = 0.0
        self._session: pkcs11.Session | None = None
        self._keys: dict[str, _Key] = {}

    async def open(self) -> None:
        """Logs in and makes the canary key if there is none.

        Raises:
            HsmUnavailableError: The library, the token or the PIN does not work. The PIN is tried once.
        """
        await self._do(self._open, once=True)

    async def open_only(self) -> None:
        """Logs in to a token that is not ours, and makes no key in it."""
        await self._do(self._connect, once=True)

    async def unwrap_any(self, label: str, wrapped: bytes, aad: bytes) -> bytes:
        """Unwraps what was wrapped by a token that is not ours; it has no canary, so what fails was changed.

        Raises:
            KeyTamperedError: It was changed or is bound to something else.
            HsmUnavailableError: The token does not answer, or has no such key.
        """

        def work() -> bytes:
            key = self._find(label)
            params = GCMParams(nonce=wrapped[:_NONCE], aad=aad, tag_bits=128)
            try:
                return key.decrypt(wrapped[_NONCE:], mechanism=Mechanism.AES_GCM, mechanism_param=params)
            except (GeneralError, EncryptedDataInvalid, EncryptedDataLenRange, DataInvalid):
                raise KeyTamperedError from None

        return await self._do(work)

    async def make(self, label: str) -> None:
        """Makes a KEK in the token if it is not there: AES-256, sensitive, not extractable (promise P04)."""
        await self._do(lambda: self._ensure_aes(label))

    async def destroy(self, label: str) -> None:
        """Destroys a KEK in the token; also when it is gone already.

        Raises:
            HsmUnavailableError: The token does not answer, or is not ours: what is not found in it says nothing.
        """

        def work() -> None:
            self._check_canary()
            for found in self._search(label):
                found.destroy()
            self._keys.pop(label, None)

        await self._do(work)

    async def rewrap(self, old: str, new: str, items: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Re-wraps DEKs from one KEK to another, in one turn of the HSM's thread.

        Args:
            old: The KEK that wraps them now.
            new: The KEK that is to wrap them.
            items: Wrapped DEKs, each with what it is bound to.

        Returns:
            The new wrapped forms; None where one was changed or belongs elsewhere.

        Raises:
            HsmUnavailableError: The token does not answer.
        """

        def work() -> list[bytes | None]:
            old_key, new_key = self._find(old), self._find(new)
            done: list[bytes | None] = []
            for wrapped, aad in items:
                try:
                    key = self._unwrap(old_key, wrapped, aad)
                except KeyTamperedError:
                    done.append(None)
                    continue
                done.append(self._wrap(new_key, key, aad))
            return done

        return await self._do(work)

    async def wrap(self, label: str, key: bytes, aad: bytes) -> bytes:
        """Wraps a DEK with a KEK: nonce (12) ‖ AES-256-GCM ciphertext ‖ tag (16)."""
        return await self._do(lambda: self._wrap(self._find(label), key, aad))

    async def unwrap(self, label: str, wrapped: bytes, aad: bytes) -> bytes:
        """Unwraps a DEK.

        A wrong AAD and an outage look alike (GeneralError), so after a failure a known canary is tried: if that opens,
        it was tampering.

        Raises:
            KeyTamperedError: The wrapped key was changed or belongs elsewhere. Not to be retried.
            HsmUnavailableError: The token does not answer.
        """
        return await self._do(lambda: self._unwrap(self._find(label), wrapped, aad))

    def _wrap(self, kek: _Key, key: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        params = GCMParams(nonce=nonce, aad=aad, tag_bits=128)
        return nonce + kek.encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=params)

    def _unwrap(self, kek: _Key, wrapped: bytes, aad: bytes) -> bytes:
        if len(wrapped) != _NONCE + 32 + 16:
            raise KeyTamperedError
        params = GCMParams(nonce=wrapped[:_NONCE], aad=aad, tag_bits=128)
        try:
            return kek.decrypt(wrapped[_NONCE:], mechanism=Mechanism.AES_GCM, mechanism_param=params)
        except PKCS11Error:
            self._check_canary()
            raise KeyTamperedError from None

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

        await self._do(work, once=True)

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

    async def _do(self, work: Callable[[], ResultT], *, once: bool = False) -> ResultT:
        """Does something in the HSM's thread; again, with the token opened anew, when it was not there.

        Raises:
            HsmUnavailableError: It was not there the second time either, or a call has not come back from it.
        """

        def guarded() -> ResultT:
            self._busy_since = time.monotonic()
            try:
                return self._attempt(work)
            except HsmUnavailableError:
                if once or not self._may_reopen():
                    raise
                self._reopen()
                return self._attempt(work)
            finally:
                self._busy_since = None

        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > _SLOW_SECONDS:
            raise HsmUnavailableError(cause=_SLOW)
        doing = asyncio.get_running_loop().run_in_executor(self._thread, guarded)
        try:
            # What the thread does cannot be stopped; only waiting for it can.
            return await asyncio.wait_for(asyncio.shield(doing), 2 * _SLOW_SECONDS)
        except TimeoutError:
            doing.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise HsmUnavailableError(cause=_SLOW) from None

    def _attempt(self, work: Callable[[], ResultT]) -> ResultT:
        try:
            return work()
        except PKCS11Error as error:
            self._keys.clear()
            raise HsmUnavailableError(cause=_cause(error)) from None

    def _may_reopen(self) -> bool:
        now = time.monotonic()
        if now - self._reopened < _REOPEN_SECONDS:
            return False
        self._reopened = now
        return True

    def _open(self) -> None:
        self._connect()
        self._ensure_aes(_CANARY_LABEL)
        self._check_canary()

    def _reopen(self) -> None:
        # The library keeps what it knew of a token that went away until it is initialised anew. No key is made here: a
        # token that came back without the canary is another token.
        self._keys.clear()
        self._session = None
        if self._foreign:
            # Initialising the library anew would end the sessions of our own token.
            self._connect()
            return
        try:
            pkcs11.lib(str(self._module)).reinitialize()
        except (PKCS11Error, RuntimeError) as error:
            raise HsmUnavailableError(cause=_cause(error)) from None
        self._connect()
        self._check_canary()

    def _connect(self) -> None:
        try:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self._token_label)
            self._log_in(token.slot.slot_id)
            self._session = token.open(rw=True)
        except (PKCS11Error, RuntimeError, OSError) as error:
            raise HsmUnavailableError(cause=_cause(error)) from None

    def _log_in(self, slot: int) -> None:
        # A token locks itself after a few wrong PINs: two are enough to know, until the file has another one.
        status = self._pin_file.stat()
        pin_seen = (status.st_mtime_ns, status.st_size)
        if self._refused_pin != pin_seen:
            self._pin_refusals = 0
        if self._pin_refusals >= _PIN_TRIES:
            raise HsmUnavailableError(cause=Label("pin-refused"))
        library = ctypes.CDLL(str(self._module))
        session = ctypes.c_ulong()
        flags = ctypes.c_ulong(_CKF_SERIAL_SESSION | _CKF_RW_SESSION)
        opened = library.C_OpenSession(ctypes.c_ulong(slot), flags, None, None, ctypes.byref(session))
        if opened != _OK:
            raise HsmUnavailableError(cause=Label("sessions-exhausted" if opened == _SESSION_COUNT else "token-gone"))
        pin = bytearray(status.st_size)
        with self._pin_file.open("rb", buffering=0) as file:
            size = file.readinto(pin)
        buffer = (ctypes.c_char * len(pin)).from_buffer(pin)
        result = library.C_Login(session, ctypes.c_ulong(_CKU_USER), buffer, ctypes.c_ulong(size))
        del buffer
        pin[:] = bytes(len(pin))
        if result in {_PIN_INCORRECT, _PIN_LOCKED}:
            self._pin_refusals += 1
            self._refused_pin = pin_seen
            raise HsmUnavailableError(cause=Label("pin-locked" if result == _PIN_LOCKED else "pin-refused"))
        if result not in {_OK, _ALREADY_LOGGED_IN}:
            raise HsmUnavailableError(cause=Label("login-failed"))

    def _require(self) -> pkcs11.Session:
        if self._session is None:
            raise HsmUnavailableError(cause=Label("not-open"))
        return self._session

    def _search(self, label: str) -> list[_Key]:
        # To its end: a search that is left open blocks the next (FACTS).
        found = list(self._require().get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}))
        return [cast("_Key", each) for each in found]

    def _find(self, label: str) -> _Key:
        # Of a customer's token nothing is remembered: its owner may take a key away at any time.
        key = None if self._foreign else self._keys.get(label)
        if key is None:
            found = self._search(label)
            # A token folder that was deleted answers 'not found' too: that is never taken for a destroyed KEK.
            # Two replicas that begin with an empty token may both make a canary: either tells what it has to.
            if not found or (len(found) > 1 and label != _CANARY_LABEL):
                raise HsmUnavailableError(cause=Label("key-not-found"))
            key = self._keys[label] = found[0]
        return key

    def _ensure_aes(self, label: str) -> None:
        if not self._search(label):
            self._require().generate_key(
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
        except PKCS11Error as error:
            raise HsmUnavailableError(cause=_cause(error)) from None
        if opened != _CANARY_TEXT:
            raise HsmUnavailableError(cause=Label("canary-changed"))


_SLOW = Label("slow")


def _cause(error: Exception) -> Label:
    """Names what the library said, for health and logs."""
    return next((cause for kind, cause in _CAUSES.items() if isinstance(error, kind)), Label("library-error"))
