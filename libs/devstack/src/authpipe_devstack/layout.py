"""What runs where: the eleven processes, their names, databases, ports and files below `.authpipe/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from authpipe_testing.ca import write_private
from authpipe_testing.ports import free_ports, is_free

TRUST_DOMAIN = "authpipe.internal"
DEPLOYMENT = "devstack"
REGION = "local"
LOG_NAME = f"authpipe.dev/{DEPLOYMENT}/log"
TRAILS = ("user-credentials", "client-secrets", "control")


@dataclass(frozen=True, slots=True)
class Process:
    """A process of ours.

    Args:
        name: What it is called here.
        identity: The path of its SPIFFE id.
        module: What Python runs.
        database: Its database and role; empty: it has none.
        cluster: The cluster of its database.
        hsm: The label of its token; empty: it has none.
        replica_of: The process whose second replica this is: same identity, database and token; empty: it is none.
    """

    name: str
    identity: str
    module: str
    database: str = ""
    cluster: str = ""
    hsm: str = ""
    replica_of: str = ""


PROCESSES = (
    Process("audit", "audit", "authpipe_audit", "audit", "core"),
    Process(
        "keyservice-audit-log",
        "keyservice/audit-log",
        "authpipe_keyservice",
        "keyservice_audit_log",
        "core",
        "audit-log",
    ),
    Process(
        "keyservice-user-credentials",
        "keyservice/user-credentials",
        "authpipe_keyservice",
        "keyservice_user_credentials",
        "core",
        "user-credentials",
    ),
    Process(
        "keyservice-client-secrets",
        "keyservice/client-secrets",
        "authpipe_keyservice",
        "keyservice_client_secrets",
        "core",
        "client-secrets",
    ),
    Process("vault", "vault", "authpipe_vault", "vault", "vault"),
    Process("clientsecrets", "clientsecrets", "authpipe_clientsecrets", "clientsecrets", "clientsecrets"),
    Process("authority", "gateway/authority", "authpipe_gateway_authority", "authority", "core"),
    Process("worker", "oauth/worker", "authpipe_oauth_worker"),
    Process("coordinator", "oauth/coordinator", "authpipe_oauth_coordinator", "coordinator", "core"),
    Process("edge", "gateway/edge", "authpipe_gateway_edge"),
    Process("herald", "herald", "authpipe_herald"),
)
CLUSTERS = ("vault", "clientsecrets", "core")
# People who run the installation: two, since a key is destroyed by two.
OPERATORS = {"operator": "operator/first", "operator-2": "operator/second"}


class Layout:
    """The files below the home folder, and the ports.

    Args:
        home: The folder, `.authpipe` by default.
        replicas: The names of processes that run once more, each for once more.
    """

    def __init__(self, home: Path, replicas: Sequence[str] = ()) -> None:
        self.home = home
        again = [
            replace(process, name=f"{process.name}-{number + 2}", replica_of=process.name)
            for process in PROCESSES
            for number in range(replicas.count(process.name))
        ]
        self.processes = (*PROCESSES, *again)
        self.certificates = home / "certificates"
        self.configs = home / "config"
        self.logs = home / "log"
        self.api_key_file = home / "api_key"
        self.mac_key_file = home / "secrets" / "mac_key"
        self.alarm_secret_file = home / "secrets" / "alarms"
        self.ports = self._ports()

    @property
    def rest_url(self) -> str:
        """Where customers and browsers reach edge."""
        return f"https://127.0.0.1:{self.ports['rest']}"

    @property
    def dashboard_url(self) -> str:
        """Where browsers reach the dashboard: by name, for passkeys are bound to one."""
        return f"https://localhost:{self.ports['rest']}"

    @property
    def grpc_address(self) -> str:
        """Where customers reach edge by gRPC."""
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def playground_issuer(self) -> str:
        """The issuer of the playground Provider."""
        return f"https://127.0.0.1:{self.ports['playground']}"

    def address(self, name: str) -> str:
        """Gives where a process listens."""
        return f"127.0.0.1:{self.ports[name]}"

    def addresses(self, name: str) -> str:
        """Gives where a process and its replicas listen, as its callers want it."""
        names = [each.name for each in self.processes if name in {each.name, each.replica_of}]
        found = ",".join(self.address(each) for each in names)
        return f"ipv4:{found}" if len(names) > 1 else found

    def move_busy_ports(self, running: set[str]) -> None:
        """Gives new ports to what does not run and whose port somebody else has taken."""
        busy = [name for name, port in self.ports.items() if name not in running and not is_free(port)]
        if busy:
            self.ports.update(zip(busy, free_ports(len(busy)), strict=True))
            write_private(self.home / "ports.json", json.dumps(self.ports).encode())

    def _ports(self) -> dict[str, int]:
        names = [each.name for each in self.processes]
        names += [*(f"postgres-{name}" for name in CLUSTERS), "rest", "grpc", "playground"]
        file = self.home / "ports.json"
        if file.exists():
            found: dict[str, int] = json.loads(file.read_text())
            if set(found) == set(names):
                return found
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        write_private(file, json.dumps(ports).encode())
        return ports
