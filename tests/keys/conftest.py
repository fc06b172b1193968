"""A system of their own for the tests of keys, with two replicas of keyservice: what they rotate and destroy is theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx2
import hvac
import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.ca import CertificateAuthority, Leaf, write_private
from authpipe_testing.customer import Customer
from authpipe_testing.ports import free_ports
from authpipe_testing.softhsm import add_token, find_module, make_token

ROOT = Path(__file__).resolve().parents[2]
KEYSERVICES = ("keyservice-user-credentials", "keyservice-user-credentials-2")
GRACE_SECONDS = 12


@dataclass
class Vendor:
    """A customer's KMS: a server or token that really runs, and what its owner does there.

    Args:
        name: The provider.
        locator: Where the key is.
        settings: What keyservice has to know.
        turn: Does something as the owner or as fate: disabled, deleted, denied, throttle, error, hang, nonsense.
        can: Which of these it can do.
    """

    name: str
    locator: dict[str, str]
    settings: dict[str, Any]
    turn: Callable[..., None]
    can: frozenset[str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)


class Place:
    """Where the vendors' servers are: their folder, CA and certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = CertificateAuthority(folder, "kms-ca")
        self.leaf: Leaf = self.ca.issue(
            folder, "kms", common_name="localhost", dns=("localhost",), addresses=("127.0.0.1",)
        )

    def run(self, script: str, settings: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """Runs a server of ours and waits until it listens."""
        file = self.folder / f"{script}.json"
        common = {"certificate": str(self.leaf.certificate), "key": str(self.leaf.key)}
        write_private(file, json.dumps({**common, **settings}).encode())
        program = Path(__file__).parent / "servers" / f"{script}.py"
        process = self.spawn(script, [sys.executable, str(program), str(file)])
        for name in ("port", "switch_port"):
            if name in settings:
                until_it_listens(settings[name])
        return process

    def spawn(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Runs a program; its output goes to a file."""
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **environment},
            )

    def switches(self, port: int) -> Callable[..., None]:
        """Gives what sets a server's switches."""
        context = ssl.create_default_context(cafile=str(self.ca.certificate_file))

        def turn(**values: Any) -> None:
            with httpx2.Client(verify=context, trust_env=False) as http:
                http.post(f"https://127.0.0.1:{port}/test", json=values).raise_for_status()

        return turn


def until_it_listens(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"Nothing listens on port {port}.")


def aws(place: Place) -> Vendor:
    """AWS KMS: moto, made to keep a key's state and a role's external id."""
    port = free_ports(1)[0]
    external_id = f"authpipe-{secrets.token_hex(8)}"
    process = place.run("aws_server", {"port": port, "external_id": external_id})
    credentials = place.folder / "aws-credentials"
    write_private(credentials, b"[default]\naws_access_key_id = AKIATESTTESTTESTTEST\naws_secret_access_key = test\n")
    endpoint, ca = f"https://localhost:{port}", str(place.ca.certificate_file)
    owner = boto3.client(
        "kms",
        region_name="eu-central-1",
        endpoint_url=endpoint,
        verify=ca,
        aws_access_key_id="owner",
        aws_secret_access_key="owner",
    )
    key = owner.create_key(KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]
    switch = place.switches(port)

    def turn(**values: Any) -> None:
        match values:
            case {"disabled": True}:
                owner.disable_key(KeyId=key["KeyId"])
            case {"deleted": True}:
                owner.schedule_key_deletion(KeyId=key["KeyId"])
            case {"disabled": False}:
                owner.enable_key(KeyId=key["KeyId"])
            case {"deleted": False}:
                owner.cancel_key_deletion(KeyId=key["KeyId"])
                owner.enable_key(KeyId=key["KeyId"])
            case _:
                switch(**values)

    locator = {
        "key_arn": key["Arn"],
        "role_arn": "arn:aws:iam::123456789012:role/authpipe",
        "external_id": external_id,
    }
    settings = {"aws_credentials_file": str(credentials), "aws_endpoint": endpoint, "ca": ca}
    can = frozenset({"disabled", "deleted", "denied", "throttle", "error", "hang", "nonsense"})
    return Vendor("aws", locator, settings, turn, can, [process])


def google(place: Place) -> Vendor:
    """Google Cloud KMS: a double on the wire, their client library."""
    port, switch_port = free_ports(2)
    name = "projects/customer/locations/europe-west1/keyRings/authpipe/cryptoKeys/tokens"
    process = place.run("google_server", {"port": port, "switch_port": switch_port, "key_name": name})
    settings = {"google_endpoint": f"localhost:{port}", "ca": str(place.ca.certificate_file)}
    can = frozenset({"disabled", "deleted", "denied", "throttle", "error", "hang", "nonsense"})
    return Vendor("google", {"key_name": name}, settings, place.switches(switch_port), can, [process])


def azure(place: Place) -> Vendor:
    """Azure Key Vault: a double on the wire, their client library."""
    port = free_ports(1)[0]
    version, token = uuid.uuid4().hex, secrets.token_hex(16)
    process = place.run("azure_server", {"port": port, "name": "tokens", "version": version, "token": token})
    file = place.folder / "azure-token"
    write_private(file, token.encode())
    settings = {
        "azure_hosts": ["localhost"],
        "azure_token_file": str(file),
        "ca": str(place.ca.certificate_file),
    }
    locator = {"key_id": f"https://localhost:{port}/keys/tokens/{version}"}
    can = frozenset({"disabled", "deleted", "denied", "throttle", "error", "hang", "nonsense"})
    return Vendor("azure", locator, settings, place.switches(port), can, [process])


def transit(place: Place) -> Vendor:
    """Transit of a real OpenBao over TLS 1.3."""
    port = free_ports(1)[0]
    folder = place.folder / "bao"
    folder.mkdir()
    config = {
        "storage": {"inmem": {}},
        "listener": {
            "tcp": {
                "address": f"127.0.0.1:{port}",
                "tls_cert_file": str(place.leaf.certificate),
                "tls_key_file": str(place.leaf.key),
                "tls_min_version": "tls13",
            }
        },
        "disable_mlock": True,
    }
    write_private(folder / "config.json", json.dumps(config).encode())
    program = str(Path(sys.executable).with_name("bao"))
    process = place.spawn("bao", [program, "server", f"-config={folder / 'config.json'}"])
    until_it_listens(port)
    address, ca = f"https://localhost:{port}", str(place.ca.certificate_file)
    owner = hvac.Client(address, verify=ca)
    begun = owner.sys.initialize(secret_shares=1, secret_threshold=1)
    owner.sys.submit_unseal_key(begun["keys"][0])
    owner.token = begun["root_token"]
    owner.sys.enable_secrets_engine("transit")
    owner.secrets.transit.create_key("tokens", key_type="aes256-gcm96")
    owner.secrets.transit.create_key("exportable", key_type="aes256-gcm96", exportable=True)
    allowed = "\n".join(
        f'path "transit/{act}/tokens" {{ capabilities = ["create", "update", "read"] }}'
        for act in ("encrypt", "decrypt", "keys")
    )
    nothing = 'path "transit/*" { capabilities = ["deny"] }'
    owner.sys.create_or_update_policy("authpipe", allowed)
    token = owner.auth.token.create(policies=["authpipe"], ttl="24h")["auth"]["client_token"]
    file = place.folder / "transit-token"
    write_private(file, token.encode())

    def turn(**values: Any) -> None:
        match values:
            case {"denied": denied}:
                owner.sys.create_or_update_policy("authpipe", nothing if denied else allowed)
            case {"error": True}:
                owner.sys.seal()
            case {"error": False}:
                owner.sys.submit_unseal_key(begun["keys"][0])
                time.sleep(0.5)
            case {"throttle": True}:
                limit = {"path": "transit/", "rate": 0.0001}
                owner.adapter.post("/v1/sys/quotas/rate-limit/authpipe", json=limit)
                for _ in range(3):  # what is left of the limit is used up
                    with contextlib.suppress(hvac.exceptions.VaultError):
                        owner.secrets.transit.read_key("tokens")
            case {"throttle": False}:
                owner.delete("sys/quotas/rate-limit/authpipe")
            case {"hang": 0.0}:
                process.send_signal(signal.SIGCONT)
            case {"hang": _}:
                process.send_signal(signal.SIGSTOP)
                # A thread of it may still answer until all of them stand still.
                os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            case _:
                raise NotImplementedError

    settings = {"transit_hosts": [f"localhost:{port}"], "transit_tokens": {"customer": str(file)}, "ca": ca}
    locator = {"address": address, "mount": "transit", "key_name": "tokens", "credential": "customer"}
    return Vendor("transit", locator, settings, turn, frozenset({"denied", "error", "throttle", "hang"}), [process])


_TOKEN = """
import sys
import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
token = pkcs11.lib(sys.argv[1]).get_token(token_label="customer")
with token.open(rw=True, user_pin=open(sys.argv[2]).read()) as session:
    old, new = sys.argv[3:5]
    if old:
        for key in list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: old})):
            key[Attribute.LABEL] = new
    else:
        session.generate_key(KeyType.AES, 256, label=new, store=True,
            capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
            template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False})
"""


@pytest.fixture(scope="session")
def customer_hsm(keys: Stack) -> Vendor:
    """A second PKCS#11 token, beside our own; its owner takes the key away by another name for it."""
    folder = keys.layout.home / "hsm" / "user-credentials"
    pin_file = keys.layout.home / "customer-pin"

    def owner(old: str, new: str) -> None:
        subprocess.run(
            [sys.executable, "-c", _TOKEN, str(find_module()), str(pin_file), old, new],
            env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
            check=True,
        )

    owner("", "tokens")

    def turn(**values: Any) -> None:
        match values:
            case {"disabled": disabled}:
                owner(*(("tokens", "taken away") if disabled else ("taken away", "tokens")))
            case _:
                raise NotImplementedError

    return Vendor("token", {"token": "customer", "key_label": "tokens"}, {}, turn, frozenset({"disabled"}))


@pytest.fixture(scope="session")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Vendor]]:
    """Every kind of a customer's KMS, running."""
    place = Place(tmp_path_factory.mktemp("kms"))
    made = [aws(place), google(place), azure(place), transit(place)]
    yield {each.name: each for each in made}
    for each in made:
        for process in each.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(10)


def kms_settings(vendors: Mapping[str, Vendor]) -> dict[str, Any]:
    """Gives what keyservice has to know of all of them."""
    settings: dict[str, Any] = {}
    for each in vendors.values():
        settings |= each.settings
    return settings


@pytest.fixture(scope="session")
def keys(vendors: dict[str, Vendor]) -> Iterator[Stack]:
    """The whole system with two replicas of keyservice, in which a disabled KEK can be destroyed after some seconds."""
    home = ROOT / ".authpipe" / f"test-keys{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    customer_pin = home / "customer-pin"
    kms = kms_settings(vendors) | {"tokens": {"customer": {"token_label": "customer", "pin_file": str(customer_pin)}}}
    bound = {"minute": 60_000, "second": 1_000}
    own = {"kek_grace_days": GRACE_SECONDS / 86_400, "kms": kms, "per_workspace": bound}
    settings = {"keyservice-user-credentials": own}

    def make() -> Stack:
        return Stack(home, lambda _: None, replicas=KEYSERVICES[:1], settings=settings)

    make().erase()
    running = make()
    # A library sees the tokens that are there when it is initialised: the customer's is there before keyservice is.
    folder = home / "hsm" / "user-credentials"
    make_token(folder, "user-credentials")
    add_token(folder, "customer", customer_pin)
    running.up()
    yield running
    running.down()


@pytest.fixture(scope="session")
def grace_seconds() -> float:
    """After what time a disabled KEK can be destroyed. It is longer than these machines take for a command."""
    return GRACE_SECONDS


@pytest.fixture
def tenant(keys: Stack) -> Iterator[Customer]:
    """A customer with a workspace of its own."""
    workspace, key = asyncio.run(keys.create_workspace("keys"))
    found = Customer(keys.layout.rest_url, str(keys.public_ca.certificate_file), key.decode(), workspace)
    yield found
    found.close()


Admin = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def admin(keys: Stack) -> Admin:
    """Runs authpipe-admin keys, as the first operator or as another one."""

    def run(*arguments: str, operator: str = "operator") -> subprocess.CompletedProcess[str]:
        config = keys.layout.configs / f"{operator}.json"
        command = [sys.executable, "-m", "authpipe_admin", "--config", str(config), "keys", *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "COLUMNS": "200"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

    return run


@pytest.fixture
def database(keys: Stack) -> Callable[..., list[tuple[Any, ...]]]:
    """Reads or writes keyservice's own database, as PostgreSQL's superuser."""

    def execute(statement: str, *values: object) -> list[tuple[Any, ...]]:
        conninfo = keys.clusters["core"].conninfo("dba", "keyservice_user_credentials")
        with psycopg.connect(**conninfo, autocommit=True) as connection:  # type: ignore[arg-type]
            done = connection.execute(statement.encode(), values)
            return done.fetchall() if done.description else []

    return execute
