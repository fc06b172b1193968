"""What is sent between our processes cannot be printed, whoever forgets that. Each in a process whose messages nothing else guards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest
from authpipe_testing.ca import CertificateAuthority

_SCRIPT = """
import asyncio
from pathlib import Path

from authpipe_rpc import Files, Health, Peer, PeerConfig, RpcServer, ServerConfig
from authpipe.types.v1 import records_pb2
from authpipe.vault.v1 import vault_pb2, vault_pb2_grpc
from authpipe_sensitive import Label

class Vault:
    def __getattr__(self, name):
        return None

def shown(message):
    return [f"{{message}}", str(message), repr(message)]

async def main():
    files = Files(certificate=Path({certificate!r}), key=Path({key!r}), ca=Path({ca!r}), trust_domain="test")
    write = records_pb2.Write(grant="THE-GRANT")
    request = records_pb2.PutRecordsRequest(writes=[write])
    if not all("THE-GRANT" in each for each in shown(request) + shown(write)):
        raise SystemExit("It was guarded before.")
{act}
    if any("THE-GRANT" in each for each in shown(request) + shown(write)):
        raise SystemExit("It can be printed.")

asyncio.run(main())
"""
_CALLER = 'Peer(PeerConfig(name="vault", address="ipv4:127.0.0.1:1"), files, vault_pb2_grpc.VaultStub)'
_SERVER = """server = RpcServer(Label("vault"), ServerConfig(host="127.0.0.1", port=1), files, Health())
server.add(vault_pb2.DESCRIPTOR.services_by_name["Vault"], vault_pb2_grpc.add_VaultServicer_to_server, Vault())"""


@pytest.mark.promise("P07")
@pytest.mark.parametrize("act", [_CALLER, _SERVER], ids=["caller", "server"])
def test_a_process_cannot_print_what_it_sends_to_a_peer_or_takes_as_a_server(act: str, tmp_path: Path) -> None:
    ca = CertificateAuthority(tmp_path, "ca")
    leaf = ca.issue(tmp_path, "leaf", common_name="x", uris=("spiffe://test/x",))
    files = {"certificate": leaf.certificate, "key": leaf.key, "ca": ca.certificate_file}
    script = _SCRIPT.format(act=indent(act, "    "), **{name: str(path) for name, path in files.items()})
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
