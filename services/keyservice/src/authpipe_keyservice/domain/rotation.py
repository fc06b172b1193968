"""Rotation of the KEK: from a new version in the token to an old one that is gone.

Every step finds what is to be done in the database, does one thing, and commits it with its event; so a replica that
dies between two steps leaves work that any replica finds again, and two that run at once do it once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from authpipe_keyservice.domain.kek_versions import KekVersion, KeyVersionState, is_second_request, require_move
from authpipe_keyservice.domain.keyring import Keyring, VersionTable
from authpipe_keyservice.domain.keys import KEY_SIZE, Wrapper, canary_aad, kek_label
from authpipe_keyservice.errors import KekInUseError, NoSuchKeyError
from authpipe_sensitive import AuditEntry

DAY = 86_400.0


class KekTable(VersionTable, Protocol):
    """KEK versions, their canaries, and the DEKs on them."""

    async def add(self, version: int, now: float, entry: AuditEntry) -> bool:
        """Adds a prepared version; False: one is prepared already, or the number is taken."""

    async def make(self, version: int, make: Callable[[], Awaitable[bytes]]) -> None:
        """Makes a version's key and canary, unless another replica has; one replica at a time."""

    async def unproven(self, version: int) -> list[str]:
        """Gives the live replicas that have not opened a version's canary."""

    async def promote(self, version: int, now: float, entry: AuditEntry) -> bool:
        """Makes a prepared version primary and the primary one active; False: it is not prepared any more."""

    async def disable(self, version: int, now: float, entry: AuditEntry) -> bool:
        """Disables an active version; False: it is not active, or a DEK is on it."""

    async def enable(self, version: int, entry: AuditEntry) -> bool:
        """Makes a disabled version active, to stay so; False: it is not disabled."""

    async def ask_destruction(self, version: int, operator: str, now: float, entry: AuditEntry) -> None:
        """Notes the first of two requests."""

    async def destroy(self, version: KekVersion, entries: Sequence[AuditEntry]) -> bool:
        """Marks a version destroyed and overwrites its canary; False: it was moved or asked for anew meanwhile."""

    async def note_erased(self, version: int) -> None:
        """Notes that a destroyed version has left the token."""

    async def counts(self) -> dict[int, int]:
        """Gives how many DEKs are on each version."""

    async def is_drained(self, version: int) -> bool:
        """Says whether no DEK is on a version."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When versions change by themselves.

    Args:
        rotate_seconds: How long a version stays primary.
        grace_seconds: How long a version has to be disabled before it can be destroyed.
    """

    rotate_seconds: float
    grace_seconds: float


class Rotation:
    """Moves KEK versions.

    Args:
        key_domain: The key domain.
        keyring: What this replica knows.
        table: The versions.
        wrapper: The HSM.
        policy: When versions change by themselves.
        clock: Seconds since the epoch.
        randomness: Gives random bytes.
    """

    def __init__(
        self,
        *,
        key_domain: str,
        keyring: Keyring,
        table: KekTable,
        wrapper: Wrapper,
        policy: Policy,
        clock: Callable[[], float],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._key_domain = key_domain
        self._keyring = keyring
        self._table = table
        self._wrapper = wrapper
        self._policy = policy
        self._clock = clock
        self._randomness = randomness
        self._actor = f"service:keyservice/{key_domain}"

    async def rotate(self, actor: str, request_id: str) -> tuple[int, bool]:
        """Begins a rotation.

        Returns:
            The version that is to become primary, and False when it was on its way already.
        """
        versions = await self._table.versions()
        prepared = next((each for each in versions if each.state is KeyVersionState.PREPARED), None)
        if prepared is not None:
            return prepared.version, False
        version = max((each.version for each in versions), default=0) + 1
        entry = self._entry("KEK_PREPARED", version, actor, request_id)
        return version, await self._table.add(version, self._clock(), entry)

    async def advance(self) -> None:
        """Takes every step that can be taken now. Called again and again, by every replica.

        Raises:
            HsmUnavailableError: The token does not answer; the step is taken later.
        """
        versions = await self._keyring.refresh()
        # Step 1: the first version of a key domain, and a new one when the primary one is old.
        primary = next((each for each in versions if each.state is KeyVersionState.PRIMARY), None)
        due = primary is None or self._clock() >= primary.primary_since + self._policy.rotate_seconds
        if due and not any(each.state is KeyVersionState.PREPARED for each in versions):
            await self.rotate(self._actor, "schedule")
            versions = await self._table.versions()
        if [each for each in versions if await self._advance(each)]:
            await self._keyring.refresh()

    async def _advance(self, version: KekVersion) -> bool:
        """Takes the next step of a version; False: there is none."""
        # Step 2: the key in the token, with its canary.
        if not version.canary and version.state is not KeyVersionState.DESTROYED:
            await self._table.make(version.version, self._maker(version))
            return True
        match version.state:
            # Step 3: primary, when every live replica has opened the canary, this one included.
            case KeyVersionState.PREPARED if not await self._table.unproven(version.version):
                entry = self._entry("KEK_PROMOTED", version.version)
                await self._table.promote(version.version, self._clock(), entry)
            # Step 4: an old version that no DEK is on.
            case KeyVersionState.ACTIVE if not version.held and await self._table.is_drained(version.version):
                entry = self._entry("KEK_DISABLED", version.version)
                await self._table.disable(version.version, self._clock(), entry)
            # Step 5: what was destroyed leaves the token; marked first, so that a crash leaves no key that counts.
            case KeyVersionState.DESTROYED if not version.erased:
                await self._wrapper.destroy(kek_label(self._key_domain, version.version))
                await self._table.note_erased(version.version)
            case _:
                return False
        return True

    def _maker(self, version: KekVersion) -> Callable[[], Awaitable[bytes]]:
        async def make() -> bytes:
            label = kek_label(self._key_domain, version.version)
            # A version in use has its key: one that is not found then is an outage, and no reason to make another.
            if version.state is KeyVersionState.PREPARED:
                await self._wrapper.make(label)
            aad = canary_aad(self._key_domain, version.version)
            return await self._wrapper.wrap(label, self._randomness(KEY_SIZE), aad)

        return make

    async def disable(self, version: int, actor: str, request_id: str) -> None:
        """Disables an active version that no DEK is on.

        Raises:
            NoSuchKeyError: There is no such version.
            KekStateError: It is not active.
            KekInUseError: DEKs are on it.
        """
        require_move(await self._version(version), KeyVersionState.DISABLED)
        entry = self._entry("KEK_DISABLED", version, actor, request_id)
        if not await self._table.disable(version, self._clock(), entry):
            raise KekInUseError(version=version)

    async def enable(self, version: int, actor: str, request_id: str) -> None:
        """Makes a disabled version active; it stays so until an operator disables it.

        Raises:
            NoSuchKeyError: There is no such version.
            KekStateError: It is not disabled.
        """
        require_move(await self._version(version), KeyVersionState.ACTIVE)
        if not await self._table.enable(version, self._entry("KEK_ENABLED", version, actor, request_id)):
            require_move(await self._version(version), KeyVersionState.ACTIVE)

    async def destroy(self, version: int, actor: str, request_id: str) -> bool:
        """Destroys a version when a second operator asks for it; False: this was the first.

        Raises:
            NoSuchKeyError: There is no such version.
            KekStateError: It is not disabled.
            GracePeriodError: It was disabled too short a time ago.
        """
        found = await self._version(version)
        now = self._clock()
        asked = self._entry("KEK_DESTRUCTION_REQUESTED", version, actor, request_id)
        if not is_second_request(found, actor, now, self._policy.grace_seconds):
            await self._table.ask_destruction(version, actor, now, asked)
            return False
        done = self._entry("KEK_DESTROYED", version, actor, request_id)
        if not await self._table.destroy(found, (asked, done)):
            require_move(await self._version(version), KeyVersionState.DESTROYED)
            return False
        await self.advance()
        return True

    async def _version(self, version: int) -> KekVersion:
        for each in await self._table.versions():
            if each.version == version:
                return each
        raise NoSuchKeyError

    def _entry(self, name: str, version: int, actor: str = "", request_id: str = "rotation") -> AuditEntry:
        return AuditEntry(
            name=name,
            outcome="SUCCEEDED",
            actor=actor or self._actor,
            request_id=request_id,
            target=kek_label(self._key_domain, version),
        )
