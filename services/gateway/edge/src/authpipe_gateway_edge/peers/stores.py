"""The stores, as far as edge asks them for what may be shown; what is served it opens as their consumer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


from authpipe.types.v1 import records_pb2
from authpipe_gateway_edge.domain.words import Verdict
from authpipe_rpc import Peer


class MaskedPeer:
    """The masked prefixes of a store.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def masked(self, verdict: Verdict, ids: Sequence[str], classes: Sequence[int] = ()) -> dict[str, str]:
        """Gives the masked prefix of each that has a record: of these classes, or of what may be served."""
        if not ids:
            return {}
        refs = [
            records_pb2.RecordRef(
                workspace_id=verdict.workspace,
                connection_id=each,
                record_class=record_class,  # type: ignore[arg-type]
            )
            for each, record_class in zip(ids, classes or [0] * len(ids), strict=True)
        ]
        request = records_pb2.GetMaskedRequest(items=refs, grant=verdict.manage_grant)
        response = await self._peer.call_idempotent(lambda stub: stub.GetMasked, request)
        return {each: item.masked for each, item in zip(ids, response.items, strict=True) if item.masked}
