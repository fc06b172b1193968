"""Every certificate against every rpc, from the descriptors: a new rpc or process is in at once."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import grpc
import pytest
from authpipe.options.v1 import access_pb2
from authpipe_devstack.layout import OPERATORS, PROCESSES
from authpipe_devstack.stack import Stack
from authpipe.types.v1 import turns_pb2
from authpipe_rpc import dns_name
from authpipe_rpc.errors import from_rpc_error
from google.protobuf import duration_pb2, empty_pb2

ROOT = Path(__file__).resolve().parents[2]
IDENTITIES = {process.name: process.identity for process in PROCESSES} | OPERATORS
# Which process serves which service of the protos.
SERVED = {
    "authpipe.keyservice.v1.KeyService": ["keyservice-user-credentials", "keyservice-client-secrets"],
    "authpipe.keyservice.v1.KeyAdministration": ["keyservice-user-credentials", "keyservice-client-secrets"],
    "authpipe.keyservice.v1.CheckpointSigner": ["keyservice-audit-log"],
    "authpipe.vault.v1.Vault": ["vault"],
    "authpipe.clientsecrets.v1.ClientSecrets": ["clientsecrets"],
    "authpipe.oauth.v1.Coordinator": ["coordinator"],
    "authpipe.oauth.v1.Containment": ["coordinator"],
    "authpipe.oauth.v1.Worker": ["worker"],
    "authpipe.authority.v1.Authority": ["authority"],
    "authpipe.authority.v1.Members": ["authority"],
    "authpipe.authority.v1.SignIn": ["authority"],
    "authpipe.audit.v1.Audit": ["audit"],
    "authpipe.audit.v1.Incidents": ["audit"],
}


def services() -> list[Any]:
    """Finds every service below protos/, whether this file knows it or not."""
    found = []
    for proto in sorted((ROOT / "protos" / "authpipe").rglob("*.proto")):
        name = ".".join(proto.relative_to(ROOT / "protos").with_suffix("").parts)
        module = importlib.import_module(f"{name}_pb2")
        found += list(module.DESCRIPTOR.services_by_name.values())
    return found


def paths(method: Any) -> list[str]:
    """Gives the names under which a method is answered: a standing one of calls has two."""
    stands = method.GetOptions().Extensions[access_pb2.standing] and not method.client_streaming
    return [method.name, f"{method.name}InTurn"] if stands else [method.name]


RPCS = [
    (
        server,
        service.full_name,
        name,
        [(c.peer, c.server) for c in method.GetOptions().Extensions[access_pb2.allowed_callers]],
    )
    for service in services()
    if not service.full_name.startswith("authpipe.gateway.")
    for server in SERVED[service.full_name]
    for method in service.methods
    for name in paths(method)
]


@pytest.mark.promise("P09")
@pytest.mark.promise("P10")
@pytest.mark.case(15)
@pytest.mark.parametrize(
    ("server", "service", "method", "callers"), RPCS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_only_the_callers_that_the_proto_names_get_in(
    server: str, service: str, method: str, callers: list[tuple[str, str]], stack: Stack
) -> None:
    allowed = {peer for peer, only in callers if only in ("", IDENTITIES[server])}
    for certificate, identity in IDENTITIES.items():
        reason = await _call(stack, server, certificate, f"/{service}/{method}")
        if identity in allowed or (identity.startswith("operator/") and "operator/*" in allowed):
            assert reason != "CALLER_NOT_ALLOWED", f"{identity} is named in the proto and was refused"
        else:
            assert reason == "CALLER_NOT_ALLOWED", f"{identity} is not named in the proto and got {reason}"


async def _call(stack: Stack, server: str, certificate: str, method: str) -> str:
    """Calls a method with an empty request, on a stream if it stands; gives the reason of the refusal, or OK."""
    files = stack.files(certificate)
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    options = [("grpc.ssl_target_name_override", dns_name(IDENTITIES[server]))]
    async with grpc.aio.secure_channel(stack.layout.address(server), credentials, options=options) as channel:
        try:
            if method.endswith("InTurn"):
                streams = channel.stream_stream(method, turns_pb2.Turn.SerializeToString, empty_pb2.Empty.FromString)
                turn = turns_pb2.Turn(timeout=duration_pb2.Duration(seconds=10))
                call = streams(timeout=20)
                await call.write(turn)
                await call.read()
            else:
                call = channel.unary_unary(method, empty_pb2.Empty.SerializeToString, empty_pb2.Empty.FromString)
                await call(empty_pb2.Empty(), timeout=10)
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason
    return "OK"


async def test_a_method_that_does_not_exist_is_refused_like_one_that_is_not_allowed(stack: Stack) -> None:
    assert await _call(stack, "vault", "edge", "/authpipe.vault.v1.Vault/Nothing") == "CALLER_NOT_ALLOWED"
    assert await _call(stack, "vault", "edge", "/grpc.reflection.v1.ServerReflection/Info") == "CALLER_NOT_ALLOWED"


def test_every_rpc_declares_its_callers_and_its_event() -> None:
    for service in services():
        for method in service.methods:
            options = method.GetOptions()
            assert options.Extensions[access_pb2.allowed_callers], method.full_name
            assert options.Extensions[access_pb2.emits], method.full_name


def test_the_dependency_list_of_a_member_is_its_right_to_call() -> None:
    """Who depends on an API's wheel is exactly who serves it, or is named in it as a caller."""
    folders = {
        "keyservice": ["keyservice/user-credentials", "keyservice/client-secrets", "keyservice/audit-log"],
        "vault": ["vault"],
        "clientsecrets": ["clientsecrets"],
        "audit": ["audit"],
        "oauth/coordinator": ["oauth/coordinator"],
        "oauth/worker": ["oauth/worker"],
        "gateway/authority": ["gateway/authority"],
        "gateway/edge": ["gateway/edge"],
        "herald": ["herald"],
    }
    for api in ("keyservice", "vault", "clientsecrets", "oauth", "authority", "audit", "gateway"):
        named: set[str] = set()
        for service in services():
            if service.full_name.startswith(f"authpipe.{api}.v1."):
                named |= {IDENTITIES[each] for each in SERVED.get(service.full_name, [])}
                for method in service.methods:
                    named |= {c.peer for c in method.GetOptions().Extensions[access_pb2.allowed_callers]}
        if api == "gateway":
            named.add("gateway/edge")
        for folder, identities in folders.items():
            project = tomllib.loads((ROOT / "services" / folder / "pyproject.toml").read_text())["project"]
            depends = f"authpipe-api-{api}" in project["dependencies"]
            assert depends == bool(named & set(identities)), f"{folder} and authpipe-api-{api}"


@pytest.mark.case(15)
def test_the_attack_sees_a_server_that_lets_everybody_in(notices: Any) -> None:
    server, service, method, callers = next(rpc for rpc in RPCS if rpc[2] == "GetMasked" and rpc[0] == "vault")
    notices(
        test_only_the_callers_that_the_proto_names_get_in,
        (
            "vault",
            "authpipe_rpc.server",
            "if not policy.allows(caller):",
            "if False:",
        ),
        server=server,
        service=service,
        method=method,
        callers=callers,
    )
