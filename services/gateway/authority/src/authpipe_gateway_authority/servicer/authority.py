"""The wire side of acts, API keys and workspaces."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from authpipe.authority.v1 import authority_pb2 as pb
from authpipe.types.v1 import records_pb2
from authpipe_gateway_authority.domain.acting import Acting, Asked
from authpipe_gateway_authority.domain.authorizing import ActAsked, Authorizing, Verdict
from authpipe_gateway_authority.domain.containing import Containing
from authpipe_gateway_authority.domain.issuing import Issuing
from authpipe_gateway_authority.domain.principals import Credential
from authpipe_gateway_authority.domain.violations import Violations
from authpipe_gateway_authority.domain.workspaces import Workspaces
from authpipe_gateway_authority.key_format import Form, hash_of, hash_token, new_token
from authpipe_grants import thumbprint
from authpipe_rpc import current_caller
from authpipe_sensitive import DomainError, Secret

# A grant is handed out again for half a minute of its minute (GrantCache); so much of it is left at the least.
# With the ten seconds for which authority hands out a grant again, none is older than 15 s when it is used: what
# keyservice knows a clock that is behind by.
_GRANT_REUSE_MS = 5_000


class AuthorityServicer:
    """Serves Authority.

    Args:
        authorizing: The rules over acts.
        violations: The rules over what did not open.
        containing: The rules over containment.
        issuing: The rules over API keys.
        workspaces: The rules over workspaces.
        hash_key: The key of the API keys' hash.
        key_kind: The middle of new API keys.
        reuse_ms: For how long a verdict may be reused.
        randomness: Gives random bytes.
    """

    def __init__(  # required means argument
        self,
        authorizing: Authorizing,
        violations: Violations,
        containing: Containing,
        issuing: Issuing,
        workspaces: Workspaces,
        hash_key: Secret,
        key_kind: str,
        reuse_ms: int,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._authorizing = authorizing
        self._violations = violations
        self._containing = containing
        self._issuing = issuing
        self._workspaces = workspaces
        self._hash_key = hash_key
        self._key_kind = key_kind
        self._reuse_ms = reuse_ms
        self._randomness = randomness

    async def Authorize(self, request: pb.AuthorizeRequest, _: object) -> pb.AuthorizeResponse:
        """Judges a batch of acts."""
        asked = [
            ActAsked(
                self._credential(item),
                int(item.act),
                item.target,
                tuple(int(each) for each in item.record_classes),
                item.request_id,
                item.worker_thumbprint,
                item.source_address,
            )
            for item in request.items
        ]
        verdicts = await self._authorizing.authorize(thumbprint(request.consumer_public_key), asked)
        return pb.AuthorizeResponse(items=[self._wire(verdict) for verdict in verdicts])

    async def ReportIntegrityViolation(
        self, request: pb.ReportIntegrityViolationRequest, _: object
    ) -> pb.ReportIntegrityViolationResponse:
        """Puts on record what did not open at a consumer."""
        await self._violations.report(current_caller(), request.record_grant, request.request_id)
        return pb.ReportIntegrityViolationResponse()

    async def CreateWorkspace(self, request: pb.CreateWorkspaceRequest, _: object) -> pb.CreateWorkspaceResponse:
        """Creates a workspace."""
        workspace = f"ws_{secrets.token_hex(12)}"
        await self._workspaces.create(_operator(workspace, request.request_id), request.display_name)
        return pb.CreateWorkspaceResponse(workspace_id=workspace)

    async def SetAuditRetention(self, request: pb.SetAuditRetentionRequest, _: object) -> pb.SetAuditRetentionResponse:
        """Puts on record for how long the bodies of a workspace's events are kept."""
        await self._workspaces.keep_events(_operator(request.workspace_id, request.request_id), request.days)
        return pb.SetAuditRetentionResponse()

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, _: object) -> pb.CreateApiKeyResponse:
        """Creates an API key."""
        api_key_id = f"key_{secrets.token_hex(8)}"
        with new_token(Form.API_KEY, self._key_kind, self._randomness) as api_key:
            await self._issuing.create(
                _operator(request.workspace_id, request.request_id),
                api_key_id,
                request.display_name,
                request.scopes,
                hash_token(self._hash_key, api_key),
            )
            return pb.CreateApiKeyResponse(api_key_id=api_key_id, api_key=bytes(api_key.expose()))

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, _: object) -> pb.RevokeApiKeyResponse:
        """Revokes an API key."""
        await self._issuing.revoke(_operator(request.workspace_id, request.request_id), request.api_key_id)
        return pb.RevokeApiKeyResponse()

    async def RevokeApiKeys(self, request: pb.RevokeApiKeysRequest, _: object) -> pb.RevokeApiKeysResponse:
        """Revokes all API keys of a workspace."""
        asked = Asked(current_caller(), request.grant, request.workspace_id, request.request_id)
        return pb.RevokeApiKeysResponse(
            revoked_count=await self._containing.revoke_api_keys(asked, dry_run=request.dry_run)
        )

    async def FreezeWorkspace(self, request: pb.FreezeWorkspaceRequest, _: object) -> pb.FreezeWorkspaceResponse:
        """Freezes a workspace."""
        asked = Asked(current_caller(), request.grant, request.workspace_id, request.request_id)
        return pb.FreezeWorkspaceResponse(was_frozen=await self._containing.freeze(asked, dry_run=request.dry_run))

    async def UnfreezeWorkspace(self, request: pb.UnfreezeWorkspaceRequest, _: object) -> pb.UnfreezeWorkspaceResponse:
        """Has a workspace served again."""
        asked = Asked(current_caller(), "", request.workspace_id, request.request_id)
        return pb.UnfreezeWorkspaceResponse(was_frozen=await self._containing.unfreeze(asked))

    def _credential(self, item: pb.ActRequest) -> Credential:
        if item.session:
            return Credential("member", hash_of(self._hash_key, Form.SESSION, item.session))
        return Credential("api_key", hash_of(self._hash_key, Form.API_KEY, item.api_key))

    def _wire(self, verdict: Verdict | DomainError) -> pb.Verdict:
        if isinstance(verdict, DomainError):
            return pb.Verdict(refusal=records_pb2.Refusal(reason=verdict.reason, code=int(verdict.status)))
        return pb.Verdict(
            workspace_id=verdict.workspace,
            actor_id=verdict.actor_id,
            record_grant=verdict.record_grant,
            manage_grant=verdict.manage_grant,
            reuse_ms=self._reuse_ms,
            grant_reuse_ms=_GRANT_REUSE_MS,
        )


def _operator(workspace: str, request_id: str) -> Acting:
    return Acting(workspace, f"operator:{current_caller()}", "", request_id)
