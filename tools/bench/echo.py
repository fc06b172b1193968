"""The reference of the benchmark: the same edge stripped to an echo. REST → mTLS gRPC → answer, no work.

`echo.py front CONFIG` is edge's own application and listener with an echo in the place of its rules: no check, no key, no
second hop; it coalesces as edge does. `echo.py back CONFIG` is our RPC server, which answers with as many records of the
usual size. Both use the certificates of the stack that is measured, and get the same requests.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from authpipe_rpc import Coalescer, Files, Health, Peer, PeerConfig, RpcServer, ServerConfig  # first: grpc's ciphers
import uvloop

from authpipe.types.v1 import records_pb2 as pb
from authpipe.vault.v1 import vault_pb2, vault_pb2_grpc
from authpipe_gateway_edge.domain.serving import Served, Serving
from authpipe_gateway_edge.domain.sources import Sources
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.rest.api import Api
from authpipe_gateway_edge.rest.app import EdgeApp
from authpipe_gateway_edge.rest.listening import rest_server
from authpipe_sensitive import Label, Secret, configure_logs

_WORKSPACE = "ws_" + "0" * 24
_RECORD = b"x" * 408


class Echo:
    """Answers with as many records as were asked for: the messages of the real thing, and no work."""

    async def GetRecords(self, request: pb.GetRecordsRequest, _: object) -> pb.GetRecordsResponse:
        """Echoes."""
        found = [pb.FoundRecord(record=pb.SealedRecord(ref=item.ref, record=_RECORD)) for item in request.items]
        return pb.GetRecordsResponse(items=found)

    def __getattr__(self, _: str) -> None:
        return None


async def back(settings: dict[str, Any], stop: asyncio.Event) -> None:
    """Answers rpcs with nothing."""
    health = Health()
    config = ServerConfig(host="127.0.0.1", port=settings["back_port"])
    server = RpcServer(Label("vault"), config, Files(**settings["back"]), health)
    service = vault_pb2.DESCRIPTOR.services_by_name["Vault"]
    server.add(service, vault_pb2_grpc.add_VaultServicer_to_server, Echo())
    await server.start()
    await health.serve()
    await stop.wait()
    await server.stop()


class EchoServing:
    """Stands where edge's rules stand: one coalesced rpc, and what it gave is the answer."""

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer
        self._coalescer: Coalescer[pb.RecordWanted, pb.FoundRecord] = Coalescer(
            self._send, outstanding=1_000, patience_seconds=0
        )

    async def _send(self, items: Sequence[pb.RecordWanted]) -> Sequence[pb.FoundRecord]:
        request = pb.GetRecordsRequest(items=items)
        return cast("Sequence[pb.FoundRecord]", (await self._peer.call(lambda stub: stub.GetRecords, request)).items)

    async def serve(self, caller: Caller, connection: str, _: int) -> Served:
        """Echoes."""
        ref = pb.RecordRef(workspace_id=_WORKSPACE, connection_id=connection)
        found = await self._coalescer.submit(pb.RecordWanted(ref=ref, request_id=caller.request_id))
        return Served(connection, "oauth2", Secret(b'{"access_token":"' + found.record.record[:300] + b'"}'), None)


async def front(settings: dict[str, Any], stop: asyncio.Event) -> None:
    """Serves edge's own application, with the echo in the place of its rules."""
    address = f"127.0.0.1:{settings['back_port']}"
    peer: Peer[Any] = Peer(
        PeerConfig(name="vault", address=address), Files(**settings["front"]), vault_pb2_grpc.VaultStub
    )
    nothing: Any = None
    api = Api(nothing, nothing, nothing, nothing, nothing, nothing, "https://echo.invalid")
    app = EdgeApp(
        api,
        cast("Serving", EchoServing(peer)),
        nothing,
        nothing,
        nothing,
        nothing,
        Sources(()),
        nothing,
        "mailto:nobody@echo.invalid",
    )
    listen = ServerConfig(host="127.0.0.1", port=settings["front_port"])
    server = rest_server(app, listen, Path(settings["public_certificate"]), Path(settings["public_key"]), 1_024)
    task = asyncio.create_task(server.serve(), name="rest")
    await stop.wait()
    server.stop()  # type: ignore[no-untyped-call]  # granian's is untyped
    await asyncio.wait([task], timeout=5)


async def main() -> None:
    """Runs one half until told to stop."""
    settings = json.loads(Path(sys.argv[2]).read_text())
    configure_logs(Label("echo"), "error")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await {"front": front, "back": back}[sys.argv[1]](settings, stop)


if __name__ == "__main__":
    uvloop.run(main())
