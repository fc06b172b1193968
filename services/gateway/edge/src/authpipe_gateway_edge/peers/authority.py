"""authority, in edge's own words. What is asked in one event-loop turn travels in one rpc, and verdicts are kept for seconds."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence


from authpipe.authority.v1 import authority_pb2, authority_pb2_grpc
from authpipe_gateway_edge.domain.ports import Act
from authpipe_gateway_edge.domain.words import Caller, Verdict
from authpipe_rpc import Coalescer, Peer, PeerRefused
from authpipe_sensitive import Status

_CACHED_VERDICTS = 20_000


class AuthorityPeer:
    """authority, batched, its verdicts reused for as long as it says.

    Args:
        peer: The connection to it.
        public_key: The HPKE key to which grants are bound.
    """

    def __init__(self, peer: Peer[authority_pb2_grpc.AuthorityAsyncStub], public_key: bytes) -> None:
        self._peer = peer
        self._public_key = public_key
        self._cache: OrderedDict[tuple[object, ...], tuple[float, Verdict]] = OrderedDict()
        self._good_until: OrderedDict[tuple[bytes, Act], float] = OrderedDict()
        self._coalescer: Coalescer[authority_pb2.ActRequest, authority_pb2.Verdict] = Coalescer(self._send)

    async def authorize(
        self, caller: Caller, act: Act, target: str, classes: Sequence[int] = (), worker_thumbprint: str = ""
    ) -> Verdict:
        """Gives the verdict on an act.

        Raises:
            PeerRefused: It was refused.
            PeerUnavailable: authority is away.
        """
        # The hash, not what was sent, is what stays in memory.
        key_hash = hashlib.sha256(caller.credential.expose()).digest()
        key = (key_hash, act, target, tuple(classes), worker_thumbprint, caller.source)
        kept, now = self._cache.get(key), time.monotonic()
        # Two clocks: the grants live half a minute, but the API key has to be known good as of a moment ago.
        if kept is not None and now < kept[0] and now < self._good_until.get((key_hash, act), 0):
            return kept[1]
        request = authority_pb2.ActRequest(
            api_key=b"" if caller.is_session else bytes(caller.credential.expose()),
            act=int(act),  # type: ignore[arg-type]  # the stub's enum is a NewType of int
            target=target,
            record_classes=classes,  # type: ignore[arg-type]
            request_id=caller.request_id,
            worker_thumbprint=worker_thumbprint,
            source_address=caller.source,
            session=bytes(caller.credential.expose()) if caller.is_session else b"",
        )
        answer = await self._coalescer.submit(request)
        if answer.HasField("refusal"):
            self._good_until.pop((key_hash, act), None)
            raise PeerRefused(answer.refusal.reason, Status(answer.refusal.code))
        verdict = Verdict(answer.workspace_id, answer.record_grant, answer.manage_grant)
        self._good_until[key_hash, act] = now + answer.reuse_ms / 1000
        self._cache[key] = (now + answer.grant_reuse_ms / 1000, verdict)
        while len(self._cache) > _CACHED_VERDICTS:
            self._cache.popitem(last=False)
        while len(self._good_until) > _CACHED_VERDICTS:
            self._good_until.popitem(last=False)
        return verdict

    async def revoke_api_keys(self, verdict: Verdict, request_id: str, *, dry_run: bool) -> int:
        """Has all API keys of the workspace revoked; gives how many were active."""
        request = authority_pb2.RevokeApiKeysRequest(grant=verdict.manage_grant, dry_run=dry_run, request_id=request_id)
        answer = await self._peer.call_idempotent(lambda stub: stub.RevokeApiKeys, request)
        self.forget()
        return answer.revoked_count

    async def freeze(self, verdict: Verdict, request_id: str, *, dry_run: bool) -> bool:
        """Has the workspace frozen; says whether it was already."""
        request = authority_pb2.FreezeWorkspaceRequest(
            grant=verdict.manage_grant, dry_run=dry_run, request_id=request_id
        )
        answer = await self._peer.call_idempotent(lambda stub: stub.FreezeWorkspace, request)
        self.forget()
        return answer.was_frozen

    def forget(self) -> None:
        """Drops all verdicts: access was taken away. Other replicas of ours follow when theirs end, in seconds."""
        self._cache.clear()
        self._good_until.clear()

    async def report_violation(self, verdict: Verdict, request_id: str) -> None:
        """Has it put on record that a record did not open here."""
        request = authority_pb2.ReportIntegrityViolationRequest(
            record_grant=verdict.record_grant, request_id=request_id
        )
        await self._peer.call(lambda stub: stub.ReportIntegrityViolation, request)

    async def _send(self, items: Sequence[authority_pb2.ActRequest]) -> Sequence[authority_pb2.Verdict | Exception]:
        request = authority_pb2.AuthorizeRequest(consumer_public_key=self._public_key, items=items)
        return (await self._peer.call_idempotent(lambda stub: stub.Authorize, request)).items
