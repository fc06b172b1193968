"""A customer's own key over a workspace's DEKs: the HSM wraps, the customer's KMS wraps again; neither side alone opens it.

    state     what it does
    primary   wraps the workspace's DEKs, new and old ones
    active    unwraps those that have not moved to the next key, or back to none
    retired   nothing: no DEK is left on it

What the KMS opens is kept for a lease of at most 60 s. It is renewed before it ends, while it is used. A KMS that refuses
(the key is disabled or gone, the permission removed) ends the lease at once; one that does not answer leaves it to its
end. So a withdrawal takes at most the length of a lease, and an outage shorter than it is not noticed.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from authpipe_keyservice.errors import (
    CustomerKeyUnavailableError,
    CustomerKeyUnfitError,
    KeyTamperedError,
)
from authpipe_sensitive import AuditEntry

AnswerT = TypeVar("AnswerT")

LEASE_SECONDS = 60.0
RENEW_AFTER_SECONDS = 30.0
CHALLENGE_SIZE = 60


class BindingState(enum.Enum):
    """What a customer's key does for its workspace."""

    PRIMARY = "primary"
    ACTIVE = "active"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Binding:
    """A customer's key as bound to a workspace.

    Args:
        workspace: The tenant.
        key_id: The id of the binding, ours.
        provider: aws, google, azure, transit or token.
        locator: Where the key is, in the provider's own words.
        state: What it does.
        withdrawn: Whether its KMS refused when it was asked last.
    """

    workspace: str
    key_id: str
    provider: str
    locator: Mapping[str, str]
    state: BindingState
    withdrawn: bool = False


class Kms(Protocol):
    """A customer's key, in its KMS. Every call is bounded in time.

    What may come of a call: CustomerKeyUnavailableError, the KMS refuses; CustomerKmsUnavailableError, it does not
    answer as it should, or asks to slow down; KeyTamperedError, what is to be unwrapped was changed or is bound to
    something else.
    """

    async def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        """Wraps up to 96 bytes, bound to a context."""

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwraps what was wrapped with the same context."""

    async def describe(self) -> str:
        """Names the key as its owner knows it, letters and digits and ``_ . : / @ -``."""

    async def close(self) -> None:
        """Lets go of connections and threads."""


class Opened(NamedTuple):
    """What a customer's key opened, with how long it may be kept (seconds of the cache's clock)."""

    payload: bytes
    renew: float
    until: float


def context_of(deployment: str, region: str, key_domain: str, workspace: str, dek: str) -> dict[str, str]:
    """Gives what a customer's KMS binds, readable in its own log: which installation, where, whose, which key."""
    return {
        "authpipe-deployment": deployment,
        "authpipe-region": region,
        "authpipe-key-domain": key_domain,
        "authpipe-workspace": workspace,
        "authpipe-dek": dek,
    }


async def prove(kms: Kms, context: Mapping[str, str], randomness: Callable[[int], bytes]) -> None:
    """Returns when a key is fit: what it wraps it unwraps, and not under a changed context.

    Raises:
        CustomerKeyUnfitError: It gives back something else, or does not bind the context.
        CustomerKeyUnavailableError: It refuses.
        CustomerKmsUnavailableError: It does not answer.
    """
    challenge = randomness(CHALLENGE_SIZE)
    bound = {**context, "authpipe-dek": "challenge"}
    wrapped = await kms.wrap(challenge, bound)
    if challenge in wrapped or not hmac.compare_digest(await kms.unwrap(wrapped, bound), challenge):
        raise CustomerKeyUnfitError
    try:
        await kms.unwrap(wrapped, {**bound, "authpipe-workspace": "another"})
    except (KeyTamperedError, CustomerKeyUnavailableError):
        # Some refuse what does not fit their policy before they look at it; both are a no.
        return
    raise CustomerKeyUnfitError


class BindingTable(Protocol):
    """Bindings in keyservice's own database."""

    async def get(self, workspace: str, key_id: str) -> Binding | None:
        """Gives a binding."""

    async def primary(self, workspace: str) -> Binding | None:
        """Gives the binding that wraps a workspace's DEKs; None: the HSM alone does."""

    async def note_withdrawn(self, workspace: str, key_id: str, entry: AuditEntry, *, withdrawn: bool) -> None:
        """Notes that a key was withdrawn or given back, once, with its event."""


class CustomerKeys:
    """Opens the outer layer of DEKs.

    Args:
        key_domain: The key domain.
        deployment: The name of the installation.
        region: Its region.
        table: The bindings.
        connect: Gives the KMS of a binding.
        clock: The cache's clock.
    """

    def __init__(
        self,
        *,
        key_domain: str,
        deployment: str,
        region: str,
        table: BindingTable,
        connect: Callable[[Binding], Kms],
        clock: Callable[[], float],
    ) -> None:
        self._key_domain = key_domain
        self._place = (deployment, region, key_domain)
        self._table = table
        self._connect = connect
        self._clock = clock
        self._kms: dict[str, Kms] = {}

    def context(self, workspace: str, dek_version: int) -> dict[str, str]:
        """Gives what the outer layer of a DEK is bound to."""
        return context_of(*self._place, workspace, f"{workspace}/{dek_version}")

    async def wrap_new(self, workspace: str, dek_version: int, inner: bytes) -> tuple[str, bytes]:
        """Wraps a new DEK with its workspace's customer key, if it has one; gives the key's id and the outer form."""
        binding = await self._table.primary(workspace)
        if binding is None:
            return "", inner
        return binding.key_id, await self.wrap(binding, dek_version, inner)

    async def wrap(self, binding: Binding, dek_version: int, inner: bytes) -> bytes:
        """Wraps a DEK, wrapped by the HSM already, with the customer's key."""
        context = self.context(binding.workspace, dek_version)
        return await self._ask(binding, lambda kms: kms.wrap(inner, context))

    async def open(self, workspace: str, key_id: str, dek_version: int, wrapped: bytes) -> Opened:
        """Opens the outer layer of a DEK.

        Raises:
            CustomerKeyUnavailableError: The customer withdrew the key.
            CustomerKmsUnavailableError: The KMS does not answer.
            KeyTamperedError: The row was changed or belongs elsewhere.
        """
        binding = await self._table.get(workspace, key_id)
        if binding is None or binding.state is BindingState.RETIRED:
            raise KeyTamperedError
        began = self._clock()
        context = self.context(workspace, dek_version)
        payload = await self._ask(binding, lambda kms: kms.unwrap(wrapped, context))
        return Opened(payload, began + RENEW_AFTER_SECONDS, began + LEASE_SECONDS)

    async def prove(self, binding: Binding, randomness: Callable[[int], bytes]) -> str:
        """Returns the name of a key that is fit to be bound."""
        context = self.context(binding.workspace, 0)

        async def act(kms: Kms) -> str:
            await prove(kms, context, randomness)
            return await kms.describe()

        return await self._ask(binding, act)

    async def close(self) -> None:
        """Lets go of every KMS."""
        for kms in self._kms.values():
            await kms.close()
        self._kms.clear()

    async def _ask(self, binding: Binding, act: Callable[[Kms], Awaitable[AnswerT]]) -> AnswerT:
        kms = self._kms.get(binding.key_id)
        if kms is None:
            kms = self._kms[binding.key_id] = self._connect(binding)
        try:
            answer = await act(kms)
        except CustomerKeyUnavailableError:
            if not binding.withdrawn:
                await self._note(binding, "CUSTOMER_KEY_WITHDRAWN", withdrawn=True)
            raise
        if binding.withdrawn:
            await self._note(binding, "CUSTOMER_KEY_RESTORED", withdrawn=False)
        return answer

    async def _note(self, binding: Binding, name: str, *, withdrawn: bool) -> None:
        entry = AuditEntry(
            name=name,
            outcome="SUCCEEDED",
            actor=f"service:keyservice/{self._key_domain}",
            request_id="customer-key",
            workspace_id=binding.workspace,
            target=binding.key_id,
        )
        await self._table.note_withdrawn(binding.workspace, binding.key_id, entry, withdrawn=withdrawn)
