"""Every listening port, seen from outside with openssl: TLS 1.3 or nothing, and a client certificate where it is ours."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from authpipe_devstack.layout import CLUSTERS, PROCESSES
from authpipe_devstack.stack import Stack
from authpipe_rpc import Files, Peer, PeerConfig
from authpipe_sensitive import DomainError
from authpipe_testing.ca import CertificateAuthority
from grpc_health.v1 import health_pb2, health_pb2_grpc

INTERNAL = [process.name for process in PROCESSES]
PUBLIC = ["rest", "grpc"]
POSTGRES = [f"postgres-{name}" for name in CLUSTERS]


def handshake(stack: Stack, port_name: str, *options: str) -> bool:
    """Says whether openssl gets through a handshake and is not thrown out after it."""
    port = stack.layout.ports[port_name]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-verify_quiet", *options]
    if port_name in POSTGRES:
        command += ["-starttls", "postgres"]
    else:
        command += ["-alpn", "h2"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    text = (done.stdout + done.stderr).decode(errors="replace")
    return "Cipher is TLS_" in text or ("Cipher is" in text and "(NONE)" not in text)


def client(stack: Stack, port_name: str) -> list[str]:
    if port_name in POSTGRES:
        leaf = stack.clusters[port_name.removeprefix("postgres-")].client("dba")
        return ["-cert", str(leaf.certificate), "-key", str(leaf.key)]
    files = stack.files("operator")
    return ["-cert", str(files.certificate), "-key", str(files.key)]


@pytest.mark.promise("P02")
@pytest.mark.case(15)
@pytest.mark.parametrize("port", [*INTERNAL, *PUBLIC, *POSTGRES])
def test_tls_1_2_is_refused_and_1_3_is_taken(port: str, stack: Stack) -> None:
    assert not handshake(stack, port, "-tls1_2", *client(stack, port))
    assert handshake(stack, port, "-tls1_3", *client(stack, port))


@pytest.mark.promise("P24")
@pytest.mark.case(15)
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_postgresql_refuses_whoever_has_no_certificate_or_another_roles(
    cluster: str, stack: Stack, tmp_path: Path
) -> None:
    found = stack.clusters[cluster]
    database = found.databases[0]
    good = found.conninfo(database, database)
    psycopg.connect(**good).close()  # type: ignore[arg-type]
    other = found.conninfo("dba", database)
    foreign = CertificateAuthority(tmp_path, "foreign-ca").issue(tmp_path, "foreign", common_name=database)
    service = stack.files("vault")
    attempts: dict[str, dict[str, Any]] = {
        "no certificate": {**good, "sslcert": "/nowhere", "sslkey": "/nowhere"},
        "another role's certificate": {**good, "sslcert": other["sslcert"], "sslkey": other["sslkey"]},
        "another CA's certificate": {**good, "sslcert": str(foreign.certificate), "sslkey": str(foreign.key)},
        "a service's certificate": {**good, "sslcert": str(service.certificate), "sslkey": str(service.key)},
        "no TLS": {**good, "sslmode": "disable"},
        "TLS 1.2": {**good, "ssl_min_protocol_version": "TLSv1.2", "ssl_max_protocol_version": "TLSv1.2"},
    }
    for name, attempt in attempts.items():
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**attempt).close()
            pytest.fail(name)


@pytest.mark.promise("P10")
@pytest.mark.promise("P24")
def test_every_role_enters_its_own_database_and_no_other(stack: Stack) -> None:
    roles = [(cluster.name, role) for cluster in stack.clusters.values() for role in cluster.databases]
    assert len(roles) == 8
    for home, role in roles:
        leaf = stack.clusters[home].client(role)
        for cluster in stack.clusters.values():
            for database in (*cluster.databases, "postgres", "template1"):
                info = {**cluster.conninfo("dba", database), "user": role}
                info |= {"sslcert": str(leaf.certificate), "sslkey": str(leaf.key)}
                if database == role:
                    psycopg.connect(**info).close()  # type: ignore[arg-type]
                else:
                    with pytest.raises(psycopg.OperationalError):
                        psycopg.connect(**info).close()  # type: ignore[arg-type]


async def health(stack: Stack, files: Files, name: str = "vault", address: str = "vault") -> str:
    """Asks for health, which any process of ours may; gives OK or the reason."""
    config = PeerConfig(name=name, address=stack.layout.address(address))
    peer: Peer[Any] = Peer(config, files, health_pb2_grpc.HealthStub, timeout_seconds=3)
    try:
        await peer.call(lambda stub: stub.Check, health_pb2.HealthCheckRequest())
    except DomainError as error:
        return error.reason
    finally:
        await peer.close()
    return "OK"


@pytest.mark.case(15)
async def test_certificates_that_name_nobody_or_two_or_another_domain_are_refused(stack: Stack, tmp_path: Path) -> None:
    ours = "spiffe://authpipe.internal/"
    forged: dict[str, dict[str, Any]] = {
        "no name": {"dns": ("vault.authpipe.internal",)},
        "two names": {"uris": (f"{ours}vault", f"{ours}gateway/edge")},
        "another trust domain": {"uris": ("spiffe://elsewhere/vault",)},
        "the right CN, no SAN": {},
    }
    for name, sans in forged.items():
        leaf = stack.ca.issue(tmp_path, name.replace(" ", "-"), common_name="operator", **sans)
        files = stack.operator().model_copy(update={"certificate": leaf.certificate, "key": leaf.key})
        assert await health(stack, files) == "PEER_NOT_IDENTIFIED", name
    assert await health(stack, stack.operator()) == "OK"


@pytest.mark.case(15)
async def test_another_cas_certificate_and_a_server_of_another_name_are_refused(stack: Stack, tmp_path: Path) -> None:
    foreign = CertificateAuthority(tmp_path, "foreign")
    uri = ("spiffe://authpipe.internal/operator",)
    leaf = foreign.issue(tmp_path, "operator", common_name="operator", uris=uri)
    files = stack.operator().model_copy(update={"certificate": leaf.certificate, "key": leaf.key})
    assert await health(stack, files) == "DEPENDENCY_UNAVAILABLE"
    # vault's name is expected, audit answers: the client refuses.
    assert await health(stack, stack.operator(), "vault", "audit") == "DEPENDENCY_UNAVAILABLE"


@pytest.mark.case(15)
def test_plaintext_gets_no_answer(stack: Stack) -> None:
    for port in [*INTERNAL, *PUBLIC]:
        with socket.create_connection(("127.0.0.1", stack.layout.ports[port]), timeout=5) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if port != "rest" else b"GET / HTTP/1.1\r\n\r\n")
            try:
                answer = plain.recv(200)
            except ConnectionError:
                answer = b""
        assert b"HTTP/1" not in answer
        assert not answer.startswith(b"\x00\x00")


@pytest.mark.case(15)
def test_the_attack_sees_a_server_that_speaks_tls_1_2(notices: Any) -> None:
    notices(
        test_tls_1_2_is_refused_and_1_3_is_taken,
        ("vault", "authpipe_rpc.tls", "    os.environ[_VARIABLE] = _NONE_OF_TLS_1_2", "    pass"),
        ("vault", "authpipe_rpc.tls", "if accepted is not wanted:", "if False:"),
        port="vault",
    )


@pytest.mark.case(15)
@pytest.mark.parametrize(
    "changes",
    [
        [("len(uris) != 1", "not uris")],
        [
            ("not uris[0].startswith(prefix)", 'not uris[0].startswith(b"spiffe://")'),
            ("uris[0][len(prefix) :]", 'uris[0].split(b"/", 3)[3]'),
        ],
    ],
    ids=["two names are taken", "any trust domain is taken"],
)
def test_the_attack_sees_a_server_that_reads_names_carelessly(changes: list[tuple[str, str]], notices: Any) -> None:
    attack = test_certificates_that_name_nobody_or_two_or_another_domain_are_refused
    notices(attack, *(("vault", "authpipe_rpc.identity", old, new) for old, new in changes))
