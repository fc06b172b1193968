"""Rows about keys: releases cold and cached, re-wraps, what a rotation and a customer's KMS that hangs add for others."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authpipe_rpc import Peer, PeerConfig  # first: it sets grpc's cipher list
import httpx2
import psycopg
from authpipe.authority.v1 import authority_pb2
from authpipe.keyservice.v1 import administration_pb2, administration_pb2_grpc, keyservice_pb2, keyservice_pb2_grpc
from authpipe.types.v1 import records_pb2
from authpipe_devstack.stack import Stack
from authpipe_grants import ConsumerKey, Issuer
from authpipe_testing.ca import CertificateAuthority, write_private
from authpipe_testing.customer import Customer
from authpipe_testing.ports import free_ports
from authpipe_testing.softhsm import make_token

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "user-credentials"
WORKSPACES = 600
DEKS = 100_000
BATCH = 64


@dataclass
class Stored:
    """A stored record, as vault would ask for its key."""

    workspace: str
    connection: str
    header: bytes


def rewraps(folder: Path) -> dict[str, float]:
    """Measures a KEK rotation over 100,000 DEKs beside the HSM's own rate; seal and open beside bare AES-256-GCM."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    configuration, _ = make_token(folder, DOMAIN)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("rewrap.py")), str(folder), str(DEKS)],
        env={"SOFTHSM2_CONF": str(configuration), "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


async def _settle(stack: Stack) -> list[Stored]:
    """Makes workspaces with one credential each."""
    waiting = iter(range(WORKSPACES))
    made: list[tuple[str, str]] = []

    authority = stack.authority()

    async def work() -> None:
        for _ in waiting:
            request = authority_pb2.CreateWorkspaceRequest(display_name="cold", request_id="req_bench")
            workspace = (await authority.call(lambda stub: stub.CreateWorkspace, request)).workspace_id
            asked = authority_pb2.CreateApiKeyRequest(
                workspace_id=workspace, display_name="cold", scopes=("connections:write",), request_id="req_bench"
            )
            key = (await authority.call(lambda stub: stub.CreateApiKey, asked)).api_key
            body = {"kind": "api_key", "end_user_id": "u", "provider": "p", "api_key": f"sk_{secrets.token_hex(16)}"}
            headers = {"authorization": f"Bearer {key.decode()}"}
            answer = await http.post("/v1/connections", json=body, headers=headers)
            made.append((workspace, answer.raise_for_status().json()["id"]))

    context = ssl.create_default_context(cafile=str(stack.public_ca.certificate_file))
    async with httpx2.AsyncClient(verify=context, base_url=stack.layout.rest_url, trust_env=False, timeout=30) as http:
        await asyncio.gather(*(work() for _ in range(16)))
    await authority.close()
    with psycopg.connect(**stack.clusters["vault"].conninfo("dba", "vault"), autocommit=True) as vault:  # type: ignore[arg-type]
        records: dict[str, bytes] = dict(
            vault.execute(
                "select connection_id, record from records where connection_id = any(%s)",
                ([connection for _, connection in made],),
            ).fetchall()
        )
    return [Stored(workspace, connection, bytes(records[connection])[:72]) for workspace, connection in made]


async def _release(stack: Stack, stored: list[Stored]) -> float:
    """Has the key of each record released, in batches, two at a time as vault does; gives how many a second."""
    key, files = ConsumerKey(), stack.files("authority")
    issuer = Issuer(files.certificate.read_bytes(), files.key.read_bytes(), files.trust_domain, time.time)
    requests = []
    for at in range(0, len(stored), BATCH):
        chunk = stored[at : at + BATCH]
        grants = [
            issuer.issue(
                audience=(f"{DOMAIN}/local",),
                consumer="gateway/edge",
                consumer_thumbprint=key.thumbprint,
                purpose="serve",
                workspace=each.workspace,
                connections=(each.connection,),
                classes=(3,),
                actor="service:bench",
                request_id="req_bench",
            )
            for each in chunk
        ]
        items = [
            keyservice_pb2.RecordHeader(
                ref=records_pb2.RecordRef(
                    workspace_id=each.workspace,
                    connection_id=each.connection,
                    record_class=records_pb2.RECORD_CLASS_API_KEY,
                ),
                version=1,
                header=each.header,
                grant_index=index,
                request_id="req_bench",
            )
            for index, each in enumerate(chunk)
        ]
        requests.append(
            keyservice_pb2.ReleaseRecordKeysRequest(
                consumer_public_key=key.public, challenge=bytes(32), grants=grants, items=items
            )
        )
    config = PeerConfig(name=f"keyservice/{DOMAIN}", address=stack.layout.address(f"keyservice-{DOMAIN}"))
    peer: Peer[Any] = Peer(config, stack.files("vault"), keyservice_pb2_grpc.KeyServiceStub)
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            answer = await peer.call(lambda stub: stub.ReleaseRecordKeys, request)
            assert not any(each.HasField("refusal") for each in answer.items), answer.items[0].refusal.reason

    began = time.perf_counter()
    await asyncio.gather(work(), work())
    seconds = time.perf_counter() - began
    await peer.close()
    return len(stored) / seconds


def releases(stack: Stack) -> tuple[float, float]:
    """Measures key releases a second: cold, every DEK through the HSM and every grant new; and from the cache."""
    stored = asyncio.run(_settle(stack))
    name = f"keyservice-{DOMAIN}"
    os.kill(stack.pid(name), 15)
    while stack.pid(name):
        time.sleep(0.05)
    stack.start(name)
    cold = asyncio.run(_release(stack, stored))
    many = stored[:BATCH] * 100
    asyncio.run(_release(stack, many[: 2 * BATCH]))
    return cold, asyncio.run(_release(stack, many))


def fill(stack: Stack) -> None:
    """Puts 100,000 DEKs beside those in use: copies of one row, which re-wrap under the name that they are bound to."""
    program = """
import asyncio, json, os, sys
from pathlib import Path
from authpipe_keyservice.domain.keys import dek_aad, kek_label
from authpipe_keyservice.hsm import Hsm
async def main():
    module, pin, version, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    hsm = Hsm(Path(module), "user-credentials", Path(pin))
    await hsm.open()
    for at in range(0, count, 256):
        names = [f"ws_bench_{n:08}" for n in range(at, min(at + 256, count))]
        done = await asyncio.gather(*(hsm.wrap(kek_label("user-credentials", version), os.urandom(32),
            dek_aad("user-credentials", name, 1)) for name in names))
        for name, wrapped in zip(names, done):
            print(name, wrapped.hex())
    await hsm.close()
asyncio.run(main())
"""
    from authpipe_testing.softhsm import find_module

    folder = stack.layout.home / "hsm" / DOMAIN
    conninfo = stack.clusters["core"].conninfo("dba", "keyservice_user_credentials")
    with psycopg.connect(**conninfo, autocommit=True) as dba:  # type: ignore[arg-type]
        (version,) = dba.execute("select version from kek_versions where state = 'primary'").fetchone() or (0,)
        arguments = [str(find_module()), str(folder / "pin"), str(version), str(DEKS)]
        made = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        with dba.cursor().copy("copy deks (workspace_id, version, kek_version, wrapped) from stdin") as copy:
            for line in made.splitlines():
                name, wrapped = line.split()
                copy.write_row((name, 1, version, bytes.fromhex(wrapped)))
        dba.execute("vacuum analyze deks")


async def _rotate(stack: Stack) -> None:
    config = PeerConfig(name=f"keyservice/{DOMAIN}", address=stack.layout.address(f"keyservice-{DOMAIN}"))
    peer: Peer[Any] = Peer(config, stack.operator(), administration_pb2_grpc.KeyAdministrationStub)
    request = administration_pb2.RotateKekRequest(request_id="req_bench")
    await peer.call(lambda stub: stub.RotateKek, request)
    while True:
        listed = await peer.call(lambda stub: stub.ListKekVersions, administration_pb2.ListKekVersionsRequest())
        if 0 < listed.rewrap_outstanding < DEKS - 2_000:
            break
        await asyncio.sleep(0.1)
    await peer.close()


def rotate(stack: Stack) -> None:
    """Begins a rotation and returns when it is re-wrapping."""
    asyncio.run(_rotate(stack))


def left(stack: Stack) -> int:
    """Gives how many DEKs are still to be re-wrapped."""
    conninfo = stack.clusters["core"].conninfo("dba", "keyservice_user_credentials")
    with psycopg.connect(**conninfo, autocommit=True) as dba:  # type: ignore[arg-type]
        counted = (
            "select count(*) from deks where kek_version between 1 and (select max(version) - 1 from kek_versions)"
        )
        row = dba.execute(counted.encode()).fetchone()
    return int(row[0]) if row else 0


class HangingKms:
    """A customer's KMS that can hang: the double of Azure's, in a process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._ca = CertificateAuthority(folder, "kms-ca")
        leaf = self._ca.issue(folder, "kms", common_name="localhost", dns=("localhost",), addresses=("127.0.0.1",))
        self.port = free_ports(1)[0]
        self._version, token = uuid.uuid4().hex, secrets.token_hex(16)
        write_private(folder / "token", token.encode())
        settings = {
            "certificate": str(leaf.certificate),
            "key": str(leaf.key),
            "port": self.port,
            "name": "tokens",
            "version": self._version,
            "token": token,
        }
        write_private(folder / "azure.json", json.dumps(settings).encode())
        self.settings = {
            "azure_hosts": ["localhost"],
            "azure_token_file": str(folder / "token"),
            "ca": str(self._ca.certificate_file),
        }
        script = ROOT / "tests" / "keys" / "servers" / "azure_server.py"
        with (folder / "azure.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(script), str(folder / "azure.json")], stdout=log, stderr=log
            )

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.wait(10)

    def hang(self, seconds: float) -> None:
        """Has every call take so long."""
        context = ssl.create_default_context(cafile=str(self._ca.certificate_file))
        with httpx2.Client(verify=context, trust_env=False) as http:
            http.post(f"https://127.0.0.1:{self.port}/test", json={"hang": seconds}).raise_for_status()

    def locator(self) -> dict[str, str]:
        """Gives where the key is."""
        return {"key_id": f"https://localhost:{self.port}/keys/tokens/{self._version}"}


async def _bind(stack: Stack, workspace: str, kms: HangingKms) -> None:
    config = PeerConfig(name=f"keyservice/{DOMAIN}", address=stack.layout.address(f"keyservice-{DOMAIN}"))
    peer: Peer[Any] = Peer(config, stack.operator(), administration_pb2_grpc.KeyAdministrationStub)
    request = administration_pb2.BindCustomerKeyRequest(
        workspace_id=workspace, provider="azure", locator=kms.locator(), request_id="req_bench"
    )
    await peer.call(lambda stub: stub.BindCustomerKey, request)
    forget = administration_pb2.ForgetCustomerKeyRequest(workspace_id=workspace, request_id="req_bench")
    kms.hang(60)
    await peer.call(lambda stub: stub.ForgetCustomerKey, forget)
    await peer.close()


@contextmanager
def one_customer_hangs(stack: Stack, kms: HangingKms) -> Iterator[Callable[[], int]]:
    """Has one customer, whose KMS hangs, ask all the time with eight connections; gives how often it was refused."""
    workspace, key = asyncio.run(stack.create_workspace("hangs"))
    with Customer(stack.layout.rest_url, str(stack.public_ca.certificate_file), key.decode()) as customer:
        connection = customer.import_api_key("sk_live_a-customer-whose-kms-hangs-0123456789")["id"]
    asyncio.run(_bind(stack, workspace, kms))
    script = stack.layout.home / "load" / "hangs.lua"
    write_private(
        script,
        f'wrk.headers["Authorization"] = "Bearer {key.decode()}"\nwrk.path = "/v1/connections/{connection}/token"\n'.encode(),
    )
    command = ["wrk", "-t1", "-c8", "-d120s", "--timeout", "30s", "-s", str(script), stack.layout.rest_url]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield lambda: asking.poll() or 0
    finally:
        asking.terminate()
        asking.wait(10)
        kms.hang(0)
