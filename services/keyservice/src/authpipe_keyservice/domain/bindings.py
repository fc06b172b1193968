"""Bindings: which customer's key wraps the DEKs of a workspace; from none to one, from one to another, and back.

DEKs move by compare-and-swap, one by one, while releases go on under whichever key a row names. No credential is touched.
A DEK whose KMS does not answer stays where it is until it does; everything else moves on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from authpipe_keyservice.domain.customer_keys import Binding, BindingState, BindingTable, CustomerKeys
from authpipe_keyservice.domain.deks import Deks
from authpipe_keyservice.domain.keyring import Keyring
from authpipe_keyservice.domain.keys import Wrapper, dek_aad, kek_label
from authpipe_keyservice.domain.replicas import Replica
from authpipe_keyservice.errors import (
    CustomerKeyUnavailableError,
    CustomerKmsUnavailableError,
    ErasedError,
    KekDisabledError,
    KeyTamperedError,
    NoSuchKeyError,
)
from authpipe_sensitive import AuditEntry

TURN = 20


class MovingDek(NamedTuple):
    """A DEK that is on another customer key, or another KEK version, than it should be."""

    version: int
    kek_version: int
    customer_key_id: str
    wrapped: bytes


class MovedDek(NamedTuple):
    """Where such a DEK comes to."""

    kek_version: int
    customer_key_id: str
    wrapped: bytes


class MovingTable(BindingTable, Protocol):
    """Bindings, and DEKs on their way from one to the next."""

    async def bind(self, binding: Binding, entry: AuditEntry) -> None:
        """Stores a binding as primary; the one before becomes active."""

    async def unbind(self, workspace: str, entry: AuditEntry) -> bool:
        """Makes the primary binding active, with none after it; False: there is none."""

    async def unsettled(self, primary_kek: int, limit: int) -> list[str]:
        """Gives workspaces with a DEK that has to come under a customer's key or from under one."""

    async def moving(self, workspace: str, primary_kek: int) -> list[MovingDek]:
        """Gives such DEKs of a workspace."""

    async def move(self, workspace: str, dek: MovingDek, moved: MovedDek, entry: AuditEntry) -> bool:
        """Stores a DEK's new form where the old one stands and the binding is still primary; False: not so."""

    async def retire(self, workspace: str, entry: AuditEntry) -> None:
        """Retires active bindings that no DEK is on, each with its event."""

    async def order_to_forget(self, workspace: str, entry: AuditEntry) -> int:
        """Tells all replicas to forget a workspace's keys, with an event; gives the order's number."""


class Bindings:
    """Binds customers' keys.

    Args:
        key_domain: The key domain.
        table: The bindings.
        customer_keys: Opens and wraps outer layers.
        deks: Makes a first DEK, so that a customer's KMS is not waited for when it is needed.
        keyring: The KEK versions.
        wrapper: The HSM.
        replica: Tells the other replicas to forget.
        randomness: Gives random bytes.
    """

    def __init__(
        self,
        *,
        key_domain: str,
        table: MovingTable,
        customer_keys: CustomerKeys,
        deks: Deks,
        keyring: Keyring,
        wrapper: Wrapper,
        replica: Replica,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._key_domain = key_domain
        self._table = table
        self._customer_keys = customer_keys
        self._deks = deks
        self._keyring = keyring
        self._wrapper = wrapper
        self._replica = replica
        self._randomness = randomness
        self._actor = f"service:keyservice/{key_domain}"

    async def bind(
        self, workspace: str, provider: str, locator: Mapping[str, str], actor: str, request_id: str
    ) -> tuple[str, str]:
        """Binds a customer's key to a workspace, once it has proved itself.

        Returns:
            The id of the binding, and the key's name as its owner knows it.

        Raises:
            CustomerKeyLocatorError: The key cannot be there.
            CustomerKeyUnfitError: It does not do what it has to. Nothing was changed.
            CustomerKeyUnavailableError: Its KMS refuses. Nothing was changed.
            CustomerKmsUnavailableError: Its KMS does not answer. Nothing was changed.
        """
        key_id = f"ck_{self._randomness(12).hex()}"
        binding = Binding(workspace, key_id, provider, dict(locator), BindingState.PRIMARY)
        # Step 1: the key proves itself, before anything depends on it.
        name = await self._customer_keys.prove(binding, self._randomness)
        # Step 2: there is a DEK, so that a first write does not wait for the KMS.
        await self._deks.ensure(workspace)
        # Step 3: from here on the key is the workspace's.
        await self._table.bind(binding, self._entry("CUSTOMER_KEY_BOUND", actor, request_id, workspace, key_id))
        # Step 4: its DEKs come under it; what is left, when this dies here, moves with the next turn.
        await self._settle(workspace)
        # Step 5: what replicas keep from before has no lease; it goes.
        await self._forget(workspace, actor, request_id)
        return key_id, name

    async def unbind(self, workspace: str, actor: str, request_id: str) -> None:
        """Takes a customer's key off a workspace; the KMS has to open its DEKs one last time.

        Raises:
            NoSuchKeyError: None is bound.
        """
        if not await self._table.unbind(workspace, self._entry("CUSTOMER_KEY_UNBOUND", actor, request_id, workspace)):
            raise NoSuchKeyError
        await self._settle(workspace)

    async def forget(self, workspace: str, actor: str, request_id: str) -> int:
        """Has every replica forget what a customer's key opened; gives how many have not said so in time."""
        return await self._forget(workspace, actor, request_id)

    async def advance(self) -> None:
        """Moves what has to move. Called again and again, by every replica."""
        for workspace in await self._table.unsettled(self._keyring.primary(), TURN):
            await self._settle(workspace)

    async def _settle(self, workspace: str) -> None:
        for dek in await self._table.moving(workspace, self._keyring.primary()):
            try:
                await self._move(workspace, dek)
            except (
                CustomerKeyUnavailableError,
                CustomerKmsUnavailableError,
                KeyTamperedError,
                KekDisabledError,
                ErasedError,
            ):
                continue  # it stays where it is; the next turn tries again
        await self._table.retire(workspace, self._entry("CUSTOMER_KEY_RETIRED", self._actor, "customer-key", workspace))

    async def _move(self, workspace: str, dek: MovingDek) -> None:
        inner = dek.wrapped
        if dek.customer_key_id:
            opened = await self._customer_keys.open(workspace, dek.customer_key_id, dek.version, dek.wrapped)
            inner = opened.payload
        primary = self._keyring.primary()
        if dek.kek_version != primary:
            old, new = await self._keyring.label(dek.kek_version), kek_label(self._key_domain, primary)
            aad = dek_aad(self._key_domain, workspace, dek.version)
            rewrapped = (await self._wrapper.rewrap(old, new, [(inner, aad)]))[0]
            if rewrapped is None:
                raise KeyTamperedError
            inner = rewrapped
        key_id, wrapped = await self._customer_keys.wrap_new(workspace, dek.version, inner)
        entry = self._entry("DEK_MOVED", self._actor, "customer-key", workspace, key_id)
        await self._table.move(workspace, dek, MovedDek(primary, key_id, wrapped), entry)

    async def _forget(self, workspace: str, actor: str, request_id: str) -> int:
        entry = self._entry("CUSTOMER_KEY_FORGOTTEN", actor, request_id, workspace)
        return await self._replica.all_obeyed(await self._table.order_to_forget(workspace, entry))

    def _entry(self, name: str, actor: str, request_id: str, workspace: str, target: str = "") -> AuditEntry:
        return AuditEntry(
            name=name,
            outcome="SUCCEEDED",
            actor=actor,
            request_id=request_id,
            workspace_id=workspace,
            target=target,
        )
