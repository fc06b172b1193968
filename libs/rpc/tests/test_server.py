"""A server between our processes, with real certificates and sockets: what it refuses, and what it survives."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from authpipe_rpc import (
    Peer,
    PeerConfig,
    PeerRefused,
    PeerUnavailable,
    dns_name,
    policies_of,
)
import grpc
from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe.options.v1 import access_pb2
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe.types.v1 import records_pb2
from authpipe_rpc.access import UndeclaredError
from authpipe_testing.ports import free_ports
from google.protobuf import descriptor_pb2, descriptor_pool


# A call on a standing stream, and one of its own, each of somebody who may: what is refused is the same.
BOTH = pytest.mark.parametrize(
    ("caller", "rpc"), [("gateway/edge", "PutRecords"), ("oauth/coordinator", "DeleteRecords")]
)


@BOTH
async def test_a_call_that_leaves_out_its_declared_event_is_an_error(caller: str, rpc: str, stage: Any) -> None:
    """PutRecords declares RECORDS_WRITTEN, DeleteRecords RECORDS_DELETED; this handler writes nothing."""
    peer = stage.peer(stage.files(caller))
    assert await stage.reason(peer, rpc) == "AUDIT_DUTY_NEGLECTED"
    await peer.close()


@BOTH
@pytest.mark.promise("P07")
async def test_an_error_that_nobody_foresaw_shows_an_incident_id_and_never_its_text(
    caller: str, rpc: str, stage: Any
) -> None:
    def fail() -> None:
        raise ValueError("sk_live_a-secret-in-an-exception")

    stage.answer = fail
    peer = stage.peer(stage.files(caller))
    with pytest.raises(PeerRefused) as caught:
        await peer.call(lambda stub: getattr(stub, rpc), getattr(records_pb2, f"{rpc}Request")())
    assert caught.value.reason == "INTERNAL"
    assert set(caught.value.metadata) == {"incident_id"}
    assert "sk_live" not in str(caught.value)
    await peer.close()


async def test_a_call_without_a_deadline_is_refused(stage: Any) -> None:
    files = stage.files("gateway/edge")
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    options = [("grpc.ssl_target_name_override", dns_name("vault"))]
    async with grpc.aio.secure_channel(f"127.0.0.1:{stage.port}", credentials, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await vault_pb2_grpc.VaultStub(channel).PutRecords(records_pb2.PutRecordsRequest())
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.case(15)
async def test_a_certificate_that_ends_while_its_connection_is_open_ends_with_it(stage: Any) -> None:
    files = stage.files("gateway/edge", life=dt.timedelta(seconds=2))
    peer = stage.peer(files)
    assert await stage.reason(peer) == "AUDIT_DUTY_NEGLECTED"  # it got in
    await asyncio.sleep(4)
    assert await stage.reason(peer) == "DEPENDENCY_UNAVAILABLE"
    await peer.close()


async def test_new_certificate_files_are_taken_up_by_both_sides_without_a_restart(stage: Any) -> None:
    peer = stage.peer(stage.files("gateway/edge", life=dt.timedelta(seconds=2)))
    assert await stage.reason(peer) == "AUDIT_DUTY_NEGLECTED"
    stage.files("vault")
    stage.files("gateway/edge")
    await asyncio.sleep(3)
    assert await stage.reason(peer) == "AUDIT_DUTY_NEGLECTED"
    await peer.close()


async def test_a_peer_that_is_away_is_told_apart_from_one_that_refuses(stage: Any) -> None:
    config = PeerConfig(name="vault", address=f"127.0.0.1:{free_ports(1)[0]}")
    peer: Peer[Any] = Peer(config, stage.files("gateway/edge"), vault_pb2_grpc.VaultStub, timeout_seconds=2)
    with pytest.raises(PeerUnavailable):
        await peer.call_idempotent(lambda stub: stub.PutRecords, records_pb2.PutRecordsRequest())
    await peer.close()


def test_a_server_with_an_rpc_that_declares_nothing_does_not_start() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="undeclared.proto", package="undeclared", syntax="proto3")
    file.message_type.add(name="Empty")
    file.service.add(name="Bare").method.add(name="Do", input_type=".undeclared.Empty", output_type=".undeclared.Empty")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    with pytest.raises(UndeclaredError):
        policies_of([pool.FindServiceByName("undeclared.Bare")], "vault")


def test_a_caller_that_is_named_for_one_server_is_not_let_in_at_another() -> None:
    service = audit_pb2.DESCRIPTOR.services_by_name["Audit"]
    assert audit_pb2_grpc.AuditServicer
    policies = policies_of([service], "audit")
    declared = service.methods_by_name["Append"].GetOptions().Extensions[access_pb2.allowed_callers]
    assert policies["/authpipe.audit.v1.Audit/Append"].callers == {caller.peer for caller in declared}


async def test_a_certificate_that_has_ended_opens_no_connection_on_either_side(stage: Any, tmp_path: Path) -> None:
    ended = stage.files("gateway/edge", life=dt.timedelta(seconds=-1))
    assert await stage.reason(stage.peer(ended)) == "DEPENDENCY_UNAVAILABLE"
    good = stage.files("gateway/edge")
    assert await stage.reason(stage.peer(good)) == "AUDIT_DUTY_NEGLECTED", "it got as far as the handler"
    # The server's files change under it: the next handshake shows the certificate that has ended.
    stage.files("vault", life=dt.timedelta(seconds=-1))
    assert await stage.reason(stage.peer(good)) == "DEPENDENCY_UNAVAILABLE"


async def test_a_peer_that_is_slow_to_shake_hands_is_reached(stage: Any) -> None:
    """A machine that has much to do takes its time: an attempt to connect is not given up for that."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                writer.write(piece)
        writer.close()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.7)
        onward = await asyncio.open_connection("127.0.0.1", stage.port)
        await asyncio.gather(forward(reader, onward[1]), forward(onward[0], writer))

    async with await asyncio.start_server(slowly, "127.0.0.1", 0) as between:
        config = PeerConfig(name="vault", address=f"127.0.0.1:{between.sockets[0].getsockname()[1]}")
        peer = Peer(config, stage.files("gateway/edge"), vault_pb2_grpc.VaultStub, timeout_seconds=5)
        assert await stage.reason(peer) == "AUDIT_DUTY_NEGLECTED", "its handler was reached"
        await peer.close()
