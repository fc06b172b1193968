"""The reference of the benchmark: the same edge stripped to an echo. REST → mTLS gRPC → answer, no work.

`echo.py front CONFIG` is Granian with a bare ASGI application that coalesces as edge does; `echo.py back CONFIG` is our
RPC server with health alone. Both use the certificates of the stack that is measured.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from authpipe_rpc import Coalescer, Files, Health, Peer, PeerConfig, RpcServer, ServerConfig
import uvloop
from authpipe.types.v1 import records_pb2 as pb
from authpipe.vault.v1 import vault_pb2, vault_pb2_grpc
from authpipe_sensitive import Label, configure_logs
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server


class Echo:
    """Answers with as many records as were asked for: the messages of the real thing, and no work."""

    async def GetRecords(self, request: pb.GetRecordsRequest, _: object) -> pb.GetRecordsResponse:
        """Echoes."""
        found = [pb.FoundRecord(record=pb.SealedRecord(ref=item.ref, record=bytes(408))) for item in request.items]
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


async def front(settings: dict[str, Any], stop: asyncio.Event) -> None:
    """Answers REST with what one coalesced rpc gave."""
    address = f"127.0.0.1:{settings['back_port']}"
    peer: Peer[Any] = Peer(
        PeerConfig(name="vault", address=address), Files(**settings["front"]), vault_pb2_grpc.VaultStub
    )

    async def send(items: Sequence[pb.RecordWanted]) -> Sequence[pb.FoundRecord]:
        return (await peer.call(lambda stub: stub.GetRecords, pb.GetRecordsRequest(items=items))).items

    coalescer: Coalescer[pb.RecordWanted, pb.FoundRecord] = Coalescer(send)

    async def app(_: dict[str, Any], __: Any, respond: Any) -> None:
        ref = pb.RecordRef(workspace_id="ws_" + "0" * 24, connection_id="con_" + "0" * 24)
        found = await coalescer.submit(pb.RecordWanted(ref=ref, request_id="req_" + "0" * 24))
        body = b'{"echo":"' + found.record.record[:300].hex().encode() + b'"}'
        await respond(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
        )
        await respond({"type": "http.response.body", "body": body})

    server = Server(
        app,
        address="127.0.0.1",
        port=settings["front_port"],
        interface=Interfaces.ASGINL,
        http=HTTPModes.auto,
        websockets=False,
        log_enabled=False,
        ssl_cert=Path(settings["public_certificate"]),
        ssl_key=Path(settings["public_key"]),
    )
    task = asyncio.create_task(server.serve(), name="rest")
    await stop.wait()
    server.stop()
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
