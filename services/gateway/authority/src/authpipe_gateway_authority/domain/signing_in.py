"""Joining by an invitation, signing in by a passkey, signing out. What is refused is on record, with why; outside it is not told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from authpipe_gateway_authority.domain.api_keys import WorkspaceRow
from authpipe_gateway_authority.domain.authorizing import Budget
from authpipe_gateway_authority.domain.challenges import Challenges, Spent
from authpipe_gateway_authority.domain.members import MemberRow, SessionRow
from authpipe_gateway_authority.errors import ForgedRowError, InvitationError, SignInError, TooManySignInsError
from authpipe_sensitive import AuditEntry, Secret
from authpipe_sensitive.duties import note_nothing_done

_SIGN_IN = "sign in"


class NewPasskey(NamedTuple):
    """A passkey that was made.

    Args:
        credential_id: Its id.
        credential: Its public key, as attested credential data.
        sign_count: How often it has signed.
    """

    credential_id: bytes
    credential: bytes
    sign_count: int


class Signed(NamedTuple):
    """What somebody says that a passkey has signed. Nothing of it is believed yet.

    Args:
        credential_id: Which passkey.
        user: Of whom the passkey says it is; empty: it says nothing.
        challenge: What was signed.
        response: All of it.
    """

    credential_id: bytes
    user: bytes
    challenge: bytes
    response: object


class Passkeys(Protocol):
    """Web Authentication."""

    def creation(self, challenge: bytes, member_id: str, email: str, workspace: str) -> str:
        """Gives what a browser makes a passkey by."""

    def request(self, challenge: bytes) -> str:
        """Gives what a browser has a passkey sign."""

    def read_new(self, credential: str) -> Signed:
        """Reads the answer to `creation`.

        Raises:
            SignInError: It is malformed.
        """

    def read(self, credential: str) -> Signed:
        """Reads the answer to `request`.

        Raises:
            SignInError: It is malformed.
        """

    def verify_new(self, signed: Signed) -> NewPasskey:
        """Verifies a new passkey for our own origin, made with the person verified.

        Raises:
            SignInError: It does not.
        """

    def verify(self, signed: Signed, credential: bytes) -> int:
        """Verifies a signature, of our own origin, made with the person verified; gives the passkey's count.

        Raises:
            SignInError: It does not.
        """


class Store(Protocol):
    """authority's own tables."""

    async def invited(self, invitation_hash: bytes) -> tuple[MemberRow, WorkspaceRow] | None:
        """Gives who was invited so."""

    async def of_passkey(self, credential_id: bytes) -> tuple[MemberRow, WorkspaceRow] | None:
        """Gives whose passkey it is."""

    async def open_session(
        self,
        spent: Spent,
        member: MemberRow,
        decide: Callable[[MemberRow], MemberRow],
        session: SessionRow,
        entries: Sequence[AuditEntry],
    ) -> None:
        """Uses a challenge up, changes a member and makes a session, in one transaction with the events.

        Args:
            spent: The challenge.
            member: The member, as found before.
            decide: Gives the member as it is to be, of the member as it is now.
            session: The session.
            entries: The events.

        Raises:
            SignInError: The challenge was used already.
            ForgedRowError: A row is not ours.
        """

    async def end_session(self, token_hash: bytes, make: Callable[[SessionRow], AuditEntry]) -> bool:
        """Ends a session with the event; False: there is none."""

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""


class Attempt(NamedTuple):
    """An attempt to come in, or out.

    Args:
        request_id: The request.
        source: The address that it came from.
    """

    request_id: str
    source: str


class NewSession(NamedTuple):
    """A session that is to be made.

    Args:
        session_id: Its id.
        token_hash: The keyed hash of its token.
        attempt: By which it is made.
    """

    session_id: str
    token_hash: bytes
    attempt: Attempt


class SigningIn:
    """The rules over signing in.

    Args:
        store: authority's own tables.
        passkeys: Web Authentication.
        challenges: Makes challenges.
        mac_key: The key of the rows' MAC.
        refusals: Events about refusals; beyond it they are counted, not written.
        tries: Tries of an address, of each step of its own.
        clock: Gives seconds.
        session_seconds: How long a session lasts.
    """

    def __init__(  # required means argument
        self,
        *,
        store: Store,
        passkeys: Passkeys,
        challenges: Challenges,
        mac_key: Secret,
        refusals: Budget,
        tries: Budget,
        clock: Callable[[], float],
        session_seconds: int,
    ) -> None:
        self._store = store
        self._passkeys = passkeys
        self._challenges = challenges
        self._mac_key = mac_key
        self._refusals = refusals
        self._tries = tries
        self._clock = clock
        self._session_seconds = session_seconds

    async def begin_joining(self, invitation_hash: bytes | None, attempt: Attempt) -> str:
        """Gives what the browser of somebody who was invited makes a passkey by.

        Raises:
            InvitationError: The invitation is not good.
            TooManySignInsError: Too many were tried from there.
        """
        await self._take_try("begin", attempt)
        try:
            member, workspace = await self._invited(invitation_hash)
        except (InvitationError, ForgedRowError) as error:
            await self._note(error, None, attempt)
            raise
        challenge = self._challenges.make(f"join {member.member_id}")
        return self._passkeys.creation(challenge, member.member_id, member.email, workspace.display_name)

    async def finish_joining(self, invitation_hash: bytes | None, credential: str, new: NewSession) -> int:
        """Registers a passkey, uses the invitation up, and makes a session; gives when it ends.

        Raises:
            InvitationError: The invitation is not good.
            SignInError: The passkey is not.
            TooManySignInsError: Too many were tried from there.
        """
        await self._take_try("finish", new.attempt)
        member: MemberRow | None = None
        try:
            member, _ = await self._invited(invitation_hash)
            signed = self._passkeys.read_new(credential)
            spent = self._challenges.check(signed.challenge, f"join {member.member_id}")
            passkey = self._passkeys.verify_new(signed)
            await self._require_unknown(passkey)

            return await self._open(
                spent,
                member,
                lambda now: _joined(now, invitation_hash, passkey),
                new,
                "MEMBER_JOINED",
                "MEMBER_SIGNED_IN",
            )
        except (SignInError, ForgedRowError) as error:
            await self._note(error, member, new.attempt)
            raise

    async def begin_sign_in(self) -> str:
        """Gives what a browser has a passkey sign."""
        return self._passkeys.request(self._challenges.make(_SIGN_IN))

    async def finish_sign_in(self, credential: str, new: NewSession) -> int:
        """Makes a session for whoever's passkey has signed; gives when it ends.

        Raises:
            SignInError: The passkey is not known, or has not signed this.
            TooManySignInsError: Too many were tried from there.
        """
        await self._take_try("finish", new.attempt)
        member: MemberRow | None = None
        try:
            signed = self._passkeys.read(credential)
            spent = self._challenges.check(signed.challenge, _SIGN_IN)
            member = await self._owner(signed)
            count = self._passkeys.verify(signed, member.credential)

            return await self._open(
                spent, member, lambda now: _signed_in(now, signed.credential_id, count), new, "MEMBER_SIGNED_IN"
            )
        except (SignInError, ForgedRowError) as error:
            await self._note(error, member, new.attempt)
            raise

    async def sign_out(self, token_hash: bytes | None, attempt: Attempt) -> None:
        """Ends a session.

        Raises:
            ForgedRowError: The workspace's row is not ours.
        """

        def entry(session: SessionRow) -> AuditEntry:
            return AuditEntry(
                name="MEMBER_SIGNED_OUT",
                outcome="SUCCEEDED",
                actor=f"member:{session.member_id}",
                request_id=attempt.request_id,
                workspace_id=session.workspace,
                target=session.session_id,
                source=attempt.source,
            )

        try:
            if token_hash is None or not await self._store.end_session(token_hash, entry):
                note_nothing_done()
        except ForgedRowError as error:
            await self._note(error, None, attempt)
            raise

    async def _invited(self, invitation_hash: bytes | None) -> tuple[MemberRow, WorkspaceRow]:
        found = await self._store.invited(invitation_hash) if invitation_hash else None
        if found is None:
            raise InvitationError
        member = self._genuine(*found)
        if member.state != "invited" or self._clock() >= member.invited_until:
            raise InvitationError
        return member, found[1]

    async def _require_unknown(self, passkey: NewPasskey) -> None:
        """Nobody registers under the id of another's passkey (Web Authentication, section 7.1, step 26)."""
        if await self._store.of_passkey(passkey.credential_id) is not None:
            raise SignInError("PASSKEY_KNOWN")

    async def _owner(self, signed: Signed) -> MemberRow:
        found = await self._store.of_passkey(signed.credential_id)
        if found is None:
            raise SignInError("PASSKEY_UNKNOWN")
        member = self._genuine(*found)
        if member.state != "active" or signed.user not in (b"", member.member_id.encode()):
            raise SignInError("PASSKEY_UNKNOWN")
        return member

    def _genuine(self, member: MemberRow, workspace: WorkspaceRow) -> MemberRow:
        genuine = member.is_genuine(self._mac_key) and workspace.is_genuine(self._mac_key)
        if not genuine or member.epoch != workspace.epoch or member.workspace != workspace.workspace:
            raise ForgedRowError
        return member

    async def _open(
        self,
        spent: Spent,
        member: MemberRow,
        decide: Callable[[MemberRow], MemberRow],
        new: NewSession,
        *names: str,
    ) -> int:
        ends = int(self._clock()) + self._session_seconds
        session = SessionRow(member.workspace, new.session_id, member.member_id, new.token_hash, ends)
        entries = [
            AuditEntry(
                name=name,
                outcome="SUCCEEDED",
                actor=f"member:{member.member_id}",
                request_id=new.attempt.request_id,
                workspace_id=member.workspace,
                target=member.member_id if name == "MEMBER_JOINED" else new.session_id,
                source=new.attempt.source,
            )
            for name in names
        ]
        await self._store.open_session(spent, member, decide, session, entries)
        return ends

    async def _take_try(self, step: str, attempt: Attempt) -> None:
        if not await self._tries.take(f"{step} {attempt.source}"):
            raise TooManySignInsError

    async def _note(self, error: SignInError | ForgedRowError, member: MemberRow | None, attempt: Attempt) -> None:
        workspace = member.workspace if member else ""
        is_forged = isinstance(error, ForgedRowError)
        if not is_forged and not await self._refusals.take(workspace):
            return
        entry = AuditEntry(
            name="AUTHORIZATION_ROW_FORGED" if is_forged else "SIGN_IN_REFUSED",
            outcome="REFUSED",
            actor=f"member:{member.member_id}" if member else "member:unknown",
            request_id=attempt.request_id,
            workspace_id=workspace,
            reason=error.why if isinstance(error, SignInError) else error.reason,
            source=attempt.source,
        )
        await self._store.note([entry])


def _joined(now: MemberRow, invitation_hash: bytes | None, passkey: NewPasskey) -> MemberRow:
    # Two browsers with one invitation: the second finds it used up.
    if now.state != "invited" or now.invitation_hash != invitation_hash:
        raise InvitationError
    return replace(
        now,
        state="active",
        invitation_hash=b"",
        credential_id=passkey.credential_id,
        credential=passkey.credential,
        sign_count=passkey.sign_count,
    )


def _signed_in(now: MemberRow, credential_id: bytes, count: int) -> MemberRow:
    if now.state != "active" or now.credential_id != credential_id:
        raise SignInError("PASSKEY_UNKNOWN")
    # A count that does not rise is of a copy (Web Authentication, section 7.2, step 22); 0 says nothing.
    if (count or now.sign_count) and count <= now.sign_count:
        raise SignInError("PASSKEY_CLONED")
    return replace(now, sign_count=count)
