"""The keyring: the KEK versions as this replica knows them. It uses none whose canary it has not opened itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from authpipe_keyservice.domain.kek_versions import KekVersion, KeyVersionState
from authpipe_keyservice.domain.keys import Wrapper, canary_aad, kek_label
from authpipe_keyservice.errors import ErasedError, HsmUnavailableError, KekDisabledError, KeyTamperedError
from authpipe_sensitive import DomainError


class VersionTable(Protocol):
    """KEK versions in keyservice's own database."""

    async def versions(self) -> list[KekVersion]:
        """Gives all versions, oldest first."""

    async def prove(self, version: int, replica: str) -> None:
        """Notes that a replica has opened a version's canary."""


class Keyring:
    """The KEK versions that this replica may use.

    Args:
        key_domain: The key domain.
        replica: The id of this replica.
        table: The versions.
        wrapper: The HSM.
    """

    def __init__(self, key_domain: str, replica: str, table: VersionTable, wrapper: Wrapper) -> None:
        self._key_domain = key_domain
        self._replica = replica
        self._table = table
        self._wrapper = wrapper
        self._versions: dict[int, KekVersion] = {}
        self._proved: set[int] = set()

    async def refresh(self) -> Sequence[KekVersion]:
        """Reads the versions and opens the canary of each that is new to this replica.

        A version that does not open here stays unproved: it does not become primary while this replica lives, and is
        not used by it.
        """
        versions = await self._table.versions()
        for each in versions:
            usable = each.state.unwraps or each.state is KeyVersionState.PREPARED
            if usable and each.canary and each.version not in self._proved:
                await self._prove(each)
        self._versions = {each.version: each for each in versions}
        return versions

    async def _prove(self, version: KekVersion) -> None:
        aad = canary_aad(self._key_domain, version.version)
        try:
            await self._wrapper.unwrap(kek_label(self._key_domain, version.version), version.canary, aad)
        except DomainError:
            return
        self._proved.add(version.version)
        await self._table.prove(version.version, self._replica)

    def prove_anew(self) -> None:
        """Forgets what this replica has opened: the others gave it up meanwhile, and what it had proved with it."""
        self._proved.clear()

    def primary(self) -> int:
        """Gives the version that wraps.

        Raises:
            HsmUnavailableError: There is none yet, or this replica cannot open its canary.
        """
        found = [each for each in self._versions.values() if each.state is KeyVersionState.PRIMARY]
        if len(found) != 1 or found[0].version not in self._proved:
            raise HsmUnavailableError
        return found[0].version

    async def check(self) -> None:
        """Returns when there is a primary version that this replica can use.

        Raises:
            HsmUnavailableError: There is none.
        """
        self.primary()

    async def label(self, version: int) -> str:
        """Gives the token's label of the version that wraps a DEK.

        Raises:
            KekDisabledError: It is disabled.
            ErasedError: It is destroyed.
            HsmUnavailableError: This replica cannot open its canary.
            KeyTamperedError: There is no such version.
        """
        found = self._versions.get(version)
        if found is None or not found.state.unwraps or version not in self._proved:
            # Another replica may have moved it since we looked.
            await self.refresh()
            found = self._versions.get(version)
        if found is None:
            raise KeyTamperedError
        match found.state:
            case KeyVersionState.DISABLED:
                raise KekDisabledError(kek_version=version)
            case KeyVersionState.DESTROYED:
                raise ErasedError
            case KeyVersionState.PREPARED | KeyVersionState.PRIMARY | KeyVersionState.ACTIVE:
                if version not in self._proved:
                    raise HsmUnavailableError
        return kek_label(self._key_domain, version)
