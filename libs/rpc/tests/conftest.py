"""A server with real certificates and sockets, that does what a test says."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from authpipe_rpc import Files, Health, Peer, PeerConfig, RpcServer, ServerConfig, dns_name
from authpipe.types.v1 import records_pb2
from authpipe.vault.v1 import vault_pb2, vault_pb2_grpc
from authpipe_sensitive import DomainError, Label
from authpipe_testing.ca import CertificateAuthority
from authpipe_testing.ports import free_ports


class StagedServer:
    """A CA, and a server of vault's API that does what a test says.

    Args:
        folder: Where certificates are.
        ca: Who signs them; None: a CA of its own.
    """

    def __init__(self, folder: Path, ca: CertificateAuthority | None = None) -> None:
        self.folder = folder
        self.ca = ca or CertificateAuthority(folder, "ca")
        self.port = free_ports(1)[0]
        self.answer: Callable[[], Any] = records_pb2.PutRecordsResponse
        # What came in: one of each stream, however many calls came on it.
        self.contexts: list[object] = []
        self._server: RpcServer | None = None

    def files(self, name: str, **more: Any) -> Files:
        """Issues the certificate of a process."""
        leaf = self.ca.issue(
            self.folder,
            name.replace("/", "-"),
            common_name="x",
            dns=(dns_name(name),),
            uris=(f"spiffe://test/{name}",),
            **more,
        )
        return Files(certificate=leaf.certificate, key=leaf.key, ca=self.ca.certificate_file, trust_domain="test")

    def peer(self, files: Files, *more_ports: int, timeout_seconds: float = 5) -> Peer[Any]:
        """Makes a caller of it, and of others beside it."""
        addresses = ",".join(f"127.0.0.1:{port}" for port in (self.port, *more_ports))
        config = PeerConfig(name="vault", address=f"ipv4:{addresses}")
        return Peer(config, files, vault_pb2_grpc.VaultStub, timeout_seconds)

    async def start(self, **more: float) -> None:
        """Starts the server."""
        config = ServerConfig(host="127.0.0.1", port=self.port, **more)
        self._server = RpcServer(Label("vault"), config, self.files("vault"), Health())
        service = vault_pb2.DESCRIPTOR.services_by_name["Vault"]
        self._server.add(service, vault_pb2_grpc.add_VaultServicer_to_server, self)
        await self._server.start()

    async def stop(self) -> None:
        """Stops it."""
        if self._server is not None:
            await self._server.stop()

    async def PutRecords(self, _: object, context: object) -> Any:  # noqa: N802  # the name of the rpc
        """Answers on a standing stream."""
        self.contexts.append(context)
        answer = self.answer()
        return await answer if inspect.isawaitable(answer) else answer

    async def DeleteRecords(self, _: object, context: object) -> Any:  # noqa: N802  # the name of the rpc
        """Answers a call of its own."""
        return await self.PutRecords(_, context)

    async def GetRecords(self, _: object, context: object) -> Any:  # noqa: N802  # the name of the rpc
        """Answers on a standing stream, and owes no event."""
        await self.PutRecords(_, context)
        return records_pb2.GetRecordsResponse()

    def beside(self) -> StagedServer:
        """Makes another replica, which is not started."""
        return StagedServer(self.folder, self.ca)

    @staticmethod
    async def reason(peer: Peer[Any], rpc: str = "PutRecords") -> str:
        """Calls an rpc; gives the reason of its refusal, or OK."""
        try:
            await peer.call(lambda stub: getattr(stub, rpc), getattr(records_pb2, f"{rpc}Request")())
        except DomainError as error:
            return error.reason
        return "OK"

    def __getattr__(self, _: str) -> Any:
        async def nothing(*_: object) -> None:
            raise AssertionError

        return nothing


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[StagedServer]:
    """Gives a server whose connections, and the streams on them, live for a second."""
    made = StagedServer(tmp_path)
    await made.start(connection_age_seconds=1.0, grace_seconds=0.5)
    yield made
    await made.stop()


@pytest.fixture
async def standing(tmp_path: Path) -> AsyncIterator[StagedServer]:
    """Gives a server whose connections live as long as they do."""
    made = StagedServer(tmp_path)
    await made.start()
    yield made
    await made.stop()
