"""Puts herald together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
from typing import Any

from authpipe_rpc import Background, Health, Peer, RpcServer, run_process  # first: it sets grpc's cipher list

from authpipe.audit.v1 import audit_pb2_grpc
from authpipe.authority.v1 import members_pb2_grpc
from authpipe_herald.config import Config
from authpipe_herald.domain.telling import Sink, Telling
from authpipe_herald.peers import AuditPeer, AuthorityPeer
from authpipe_herald.sinks import EmailSink, OwnersSink, WebhookSink
from authpipe_sensitive import DomainError, Label, get_log
from authpipe_telemetry import TelemetryConfig, configure_telemetry


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Tells of incidents until told to stop. It serves nothing but its health."""
    name = Label("herald")
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    audit: Peer[Any] = Peer(config.audit, config.files, audit_pb2_grpc.IncidentsStub)
    sinks: list[Sink] = [*map(WebhookSink, config.webhooks), *map(EmailSink, config.emails)]
    if config.owners and config.authority:
        authority = AuthorityPeer(Peer(config.authority, config.files, members_pb2_grpc.MembersStub))
        sinks.append(OwnersSink(config.owners, authority.owners))
    telling = Telling(AuditPeer(audit))
    health = Health()
    server = RpcServer(name, config.server, config.files, health)
    await server.start()
    await health.serve()
    beside = Background(stop)
    for sink in sinks:
        beside.add(f"sink {sink.name}", _tell(telling, sink, config.tell_seconds, stop))
    await stop.wait()
    await server.stop()
    await beside.finish()
    for sink in sinks:
        await sink.close()


async def _tell(telling: Telling, sink: Sink, seconds: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await telling.tell(sink)
        except DomainError as error:
            get_log().error("audit was not asked for incidents", error=error)
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            continue


if __name__ == "__main__":
    run_process("herald", Config, serve)
