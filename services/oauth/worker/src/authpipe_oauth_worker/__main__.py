"""Puts the worker together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import secrets
import time
from typing import Any

from authpipe_rpc import Background, Health, Peer, RpcServer, run_process  # first: it sets grpc's cipher list

from authpipe.clientsecrets.v1 import clientsecrets_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2_grpc, worker_pb2, worker_pb2_grpc
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe_consumer import RecordClient, StoreCaller
from authpipe_grants import ConsumerKey, TrustAnchor
from authpipe_oauth_worker.asking import ask
from authpipe_oauth_worker.bodies import Bodies
from authpipe_oauth_worker.config import Config
from authpipe_oauth_worker.domain.checking import Checking
from authpipe_oauth_worker.domain.delivering import Delivering
from authpipe_oauth_worker.domain.discovery import discover
from authpipe_oauth_worker.domain.jobs import Jobs
from authpipe_oauth_worker.domain.nonces import Nonces
from authpipe_oauth_worker.domain.proxying import Proxying
from authpipe_oauth_worker.domain.resealing import Resealing
from authpipe_oauth_worker.domain.webhooks import Webhooks
from authpipe_oauth_worker.egress import Egress
from authpipe_oauth_worker.peers import CoordinatorPeer
from authpipe_oauth_worker.placing import place
from authpipe_oauth_worker.proofs import Proofs
from authpipe_oauth_worker.requests import token_request
from authpipe_oauth_worker.servicer import WorkerServicer
from authpipe_oauth_worker.signatures import matches
from authpipe_oauth_worker.signing import sign_oauth1
from authpipe_oauth_worker.spool import Spool
from authpipe_sensitive import DomainError, Label, get_log
from authpipe_telemetry import TelemetryConfig, configure_telemetry


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves the worker until told to stop."""
    name = Label("oauth/worker")
    files = config.files
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    key = ConsumerKey()
    anchor = TrustAnchor(files.ca.read_bytes(), files.trust_domain)
    vault: Peer[Any] = Peer(config.vault, files, vault_pb2_grpc.VaultStub)
    client_secrets: Peer[Any] = Peer(config.clientsecrets, files, clientsecrets_pb2_grpc.ClientSecretsStub)
    where = (config.deployment, config.region)
    egress = Egress(
        config.provider_ca,
        config.provider_timeout_seconds,
        allow_loopback=config.unsafe_allow_loopback,
        write=token_request,
    )
    bodies = Bodies()
    consumers = (
        RecordClient(StoreCaller(vault, key, anchor, *where, "user-credentials", _now)),
        RecordClient(StoreCaller(client_secrets, key, anchor, *where, "client-secrets", _now)),
    )
    spool = Spool(config.spool)
    spool.open()
    nonces = Nonces()
    jobs = Jobs(*consumers, egress, bodies, spool, ask, sign_oauth1, Proofs(), nonces, _now, os.urandom)
    coordinator: Peer[Any] = Peer(config.coordinator, files, coordinator_pb2_grpc.CoordinatorStub)
    delivering = Delivering(spool, consumers[0], CoordinatorPeer(coordinator, key.thumbprint), _new_id)
    proxying = Proxying(jobs.desk, egress, place)
    health = Health()
    server = RpcServer(name, config.server, files, health, streams=True)
    servicer = WorkerServicer(
        jobs,
        Resealing(*consumers),
        proxying,
        Checking(jobs.desk, place),
        Webhooks(consumers[0], matches, time.time),
        lambda issuer: discover(issuer, egress.get, bodies.read),
        key,
    )
    server.add(
        worker_pb2.DESCRIPTOR.services_by_name["Worker"],
        worker_pb2_grpc.add_WorkerServicer_to_server,
        servicer,
    )
    await server.start()
    await health.serve()
    beside = Background(stop)
    beside.add("delivery of answers", _deliver(delivering, config.deliver_seconds, stop))
    await stop.wait()
    await server.stop()
    await servicer.finish()
    await beside.finish()
    await egress.close()


async def _deliver(delivering: Delivering, seconds: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await delivering.run()
        except DomainError as error:
            get_log().error("answers on the disk are not delivered", error=error)
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            continue


def _new_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


if __name__ == "__main__":
    run_process("worker", Config, serve)
