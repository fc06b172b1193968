"""Bringing the system up and down. Each step may find its work done already: `up` twice is `up` once."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import importlib.util
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from authpipe_rpc import Files, Peer, PeerConfig, Probe, dns_name  # first: it sets grpc's cipher list
import httpx2
from cryptography import x509

from authpipe.authority.v1 import authority_pb2, authority_pb2_grpc, members_pb2, members_pb2_grpc
from authpipe_database import DatabaseConfig
from authpipe_database.migrations import upgrade
from authpipe_devstack.configs import Configs
from authpipe_devstack.layout import CLUSTERS, OPERATORS, PROCESSES, TRUST_DOMAIN, Layout, Process
from authpipe_testing.ca import CertificateAuthority, write_private
from authpipe_testing.postgres import Cluster
from authpipe_testing.softhsm import make_token

_SCOPES = (
    "tokens:read",
    "tokens:refresh",
    "connections:read",
    "connections:write",
    "provider_configs:read",
    "provider_configs:write",
    "proxy:use",
    "connect_sessions:write",
    "audit:read",
    "workspace:contain",
)
_RENEW_BEFORE = dt.timedelta(hours=6)
_HEALTHY_WITHIN_SECONDS = 60


class StackError(RuntimeError):
    """The system did not come up; the message says which part, and where its log is."""


class Stack:
    """The system below one folder.

    Args:
        home: The folder.
        say: Called with each step, for people.
        log_level: debug, info, warning or error.
        trace_ratio: The share of traces kept.
        replicas: The names of processes that run once more, each for once more.
        settings: More settings of a process, by its name.
    """

    def __init__(  # everything of it is handed in
        self,
        home: Path,
        say: Callable[[str], None],
        log_level: str = "info",
        trace_ratio: float = 0.01,
        replicas: Sequence[str] = (),
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        self.layout = Layout(home, replicas)
        self._settings = settings or {}
        self._say = say
        self.ca = CertificateAuthority(home / "ca", "internal-ca")
        self.public_ca = CertificateAuthority(home / "ca", "public-ca")
        self._database_ca = CertificateAuthority(home / "ca", "database-ca")
        self._log_level = log_level
        self._trace_ratio = trace_ratio
        # Held so that their ends are noticed: a child that nobody waits for stays as a zombie.
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def clusters(self) -> dict[str, Cluster]:
        """The clusters by name."""
        layout = self.layout
        return {
            name: Cluster(
                name,
                layout.home / "postgres" / name,
                layout.ports[f"postgres-{name}"],
                self._database_ca,
                layout.certificates,
                tuple(process.database for process in PROCESSES if process.cluster == name),
                layout.logs / f"postgres-{name}.log",
                (("audit", "audit_retention"), ("audit", "audit_watch")) if name == "core" else (),
            )
            for name in CLUSTERS
        }

    def up(self) -> None:
        """Brings up whatever does not run, and waits until all of it is healthy.

        Raises:
            StackError: A part did not come up.
        """
        running = {name for name in self._pids() if self.pid(name)}
        running |= {f"postgres-{name}" for name, cluster in self.clusters.items() if cluster.is_running()}
        self.layout.move_busy_ports(running | ({"rest", "grpc"} if "edge" in running else set()))
        self._say("Certificates and keys")
        self._issue_certificates()
        self._say("Three PostgreSQL clusters and three HSM tokens")
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(self._start_cluster, self.clusters.values()))
            list(pool.map(self._make_token, [each for each in PROCESSES if each.hsm]))
        self._say("Migrations")
        configs = Configs(
            self.layout, self.ca, self.public_ca, self.clusters, self._log_level, self._trace_ratio, self._settings
        )
        for name in OPERATORS:
            configs.write_operator(name)
        for process in self.layout.processes:
            configs.write(process)
            if process.database and not process.replica_of:
                owner = DatabaseConfig(**configs.database(process, f"{process.database}_owner"))
                upgrade(owner, _migrations(process))
        self._say("Eleven processes and a playground Provider")
        for process in self.layout.processes:
            if not self.pid(process.name):
                self._start(process, process.module, {})
        if not self.pid("playground"):
            self._start_playground()
        self._wait_until_healthy()
        self._say("A workspace with an API key")
        asyncio.run(self._make_workspace())

    def down(self) -> None:
        """Stops everything that `up` started, and nothing else."""
        pids = {name: self.pid(name) for name in self._pids()}
        for pid in pids.values():
            if pid:
                os.kill(pid, signal.SIGTERM)
        ends = time.monotonic() + 10
        for name, pid in pids.items():
            while self.pid(name) and time.monotonic() < ends:
                time.sleep(0.05)
            if pid and self.pid(name):
                os.kill(pid, signal.SIGKILL)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda cluster: cluster.stop(), self.clusters.values()))
        for child in self._children:
            child.wait(10)
        self._children.clear()
        write_private(self._state_file, b"{}")

    def status(self) -> dict[str, Any]:
        """Gives what runs where, as `devstack status --json` prints it."""
        layout = self.layout
        workspace_file = layout.home / "workspace_id"
        healthy = asyncio.run(self._health())
        return {
            "edge": {"rest": layout.rest_url, "grpc": layout.grpc_address},
            "ca_file": str(self.public_ca.certificate_file),
            "api_key_file": str(layout.api_key_file),
            "workspace_id": workspace_file.read_text() if workspace_file.exists() else "",
            "playground_issuer": layout.playground_issuer,
            "playground_pid": self.pid("playground"),
            "clusters": [
                {"name": name, "address": f"127.0.0.1:{cluster.port}", "pid": cluster.pid()}
                for name, cluster in self.clusters.items()
            ],
            "processes": [
                {
                    "name": process.name,
                    "spiffe_id": f"spiffe://{TRUST_DOMAIN}/{process.identity}",
                    "address": layout.address(process.name),
                    "pid": self.pid(process.name),
                    "healthy": healthy[process.name],
                    "cert_file": str(layout.certificates / f"{process.name}.pem"),
                    "key_file": str(layout.certificates / f"{process.name}.key"),
                    "database": self._database(process),
                    "log_file": str(layout.logs / f"{process.name}.log"),
                }
                for process in self.layout.processes
            ],
        }

    def pid(self, name: str) -> int:
        """Gives the process id of a part of ours; 0: it does not run. A reused id is not taken for ours."""
        entry = self._pids().get(name)
        if entry is None or _started(entry["pid"]) != entry["started"]:
            return 0
        return int(entry["pid"])

    def send(self, name: str, number: signal.Signals) -> bool:
        """Sends a part of ours a signal; False: it does not run. Of 0 as a process id the kernel makes our whole group."""
        pid = self.pid(name)
        if pid:
            os.kill(pid, number)
        return pid != 0

    def start(self, name: str, module: str = "", environment: Mapping[str, str] | None = None) -> None:
        """Starts one process again and waits until it is healthy.

        Args:
            name: The process.
            module: Another main module than its own, for a test.
            environment: What that module wants in its environment.
        """
        process = next(process for process in self.layout.processes if process.name == name)
        self._start(process, module or process.module, environment or {})
        self._wait_until_healthy()

    def operator(self) -> Files:
        """Gives the first operator's certificate."""
        return self.files("operator")

    def files(self, name: str) -> Files:
        """Gives the certificate of a process, or of the operator."""
        return Files(
            certificate=self.layout.certificates / f"{name}.pem",
            key=self.layout.certificates / f"{name}.key",
            ca=self.ca.certificate_file,
            trust_domain=TRUST_DOMAIN,
        )

    @property
    def _state_file(self) -> Path:
        return self.layout.home / "pids.json"

    def _pids(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._state_file.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _database(self, process: Process) -> dict[str, Any] | None:
        if not process.database:
            return None
        port = self.layout.ports[f"postgres-{process.cluster}"]
        return {"host": "127.0.0.1", "port": port, "name": process.database, "user": process.database}

    def _issue_certificates(self) -> None:
        folder = self.layout.certificates
        for name, identity in [*((each.name, each.identity) for each in self.layout.processes), *OPERATORS.items()]:
            if _is_fresh(folder / f"{name}.pem"):
                continue
            self.ca.issue(
                folder,
                name,
                common_name=identity.replace("/", "-"),
                dns=(dns_name(identity),),
                uris=(f"spiffe://{TRUST_DOMAIN}/{identity}",),
            )
        if not _is_fresh(folder / "public.pem"):
            self.public_ca.issue(
                folder, "public", common_name="localhost", dns=("localhost",), addresses=("127.0.0.1",)
            )
        for stale in folder.glob("db-*.pem"):
            if not _is_fresh(stale):
                stale.unlink()
        if not self.layout.mac_key_file.exists():
            write_private(self.layout.mac_key_file, secrets.token_bytes(64))
        if not self.layout.alarm_secret_file.exists():
            secret = base64.b64encode(secrets.token_bytes(32))
            write_private(self.layout.alarm_secret_file, b"whsec_" + secret)

    def _start_cluster(self, cluster: Cluster) -> None:
        if not cluster.is_running():
            cluster.prepare()
            try:
                cluster.start()
            except RuntimeError as error:
                raise StackError(str(error)) from None
        cluster.ensure_databases()

    def _make_token(self, process: Process) -> None:
        make_token(self.layout.home / "hsm" / process.hsm, process.hsm)

    def _start(self, process: Process, module: str, more: Mapping[str, str]) -> None:
        environment = dict(more)
        if process.hsm:
            environment["SOFTHSM2_CONF"] = str(self.layout.home / "hsm" / process.hsm / "softhsm2.conf")
        config = self.layout.configs / f"{process.name}.json"
        self._spawn(process.name, module, config, environment)

    def _start_playground(self) -> None:
        settings = {
            "port": self.layout.ports["playground"],
            "issuer": self.layout.playground_issuer,
            "certificate": str(self.layout.certificates / "public.pem"),
            "key": str(self.layout.certificates / "public.key"),
            "life_seconds": 3600,
        }
        file = self.layout.configs / "playground.json"
        write_private(file, json.dumps(settings).encode())
        self._spawn("playground", "authpipe_devstack.playground", file, {})

    def _spawn(self, name: str, module: str, config: Path, environment: dict[str, str]) -> None:
        self.layout.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_file = self.layout.logs / f"{name}.log"
        kept = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG", "LC_ALL"}}
        with os.fdopen(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**kept, **environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._children.append(process)
        pids = self._pids()
        pids[name] = {"pid": process.pid, "started": _started(process.pid)}
        write_private(self._state_file, json.dumps(pids).encode())

    def _wait_until_healthy(self) -> None:
        """Waits until all of it is healthy; a process that ended is an error."""
        ends = time.monotonic() + _HEALTHY_WITHIN_SECONDS
        while True:
            healthy = asyncio.run(self._health())
            missing = [name for name, serving in healthy.items() if not serving]
            if not missing:
                return
            dead = [name for name in missing if not self.pid(name)]
            if dead or time.monotonic() > ends:
                logs = ", ".join(str(self.layout.logs / f"{name}.log") for name in dead or missing)
                raise StackError(f"Not healthy: {', '.join(dead or missing)}. See {logs}.")
            time.sleep(0.2)

    async def _health(self) -> dict[str, bool]:
        async def ask(process: Process) -> bool:
            if not self.pid(process.name):
                return False
            config = PeerConfig(name=process.identity, address=self.layout.address(process.name))
            probe = Probe(config, self.operator())
            try:
                return await probe.is_serving()
            finally:
                await probe.close()

        answers = await asyncio.gather(*(ask(process) for process in self.layout.processes))
        return {process.name: answer for process, answer in zip(self.layout.processes, answers, strict=True)}

    async def _make_workspace(self) -> None:
        if self.layout.api_key_file.exists():
            return
        workspace, api_key = await self.create_workspace("Playground")
        write_private(self.layout.home / "workspace_id", workspace.encode())
        write_private(self.layout.api_key_file, api_key)

    async def create_workspace(self, name: str, scopes: tuple[str, ...] = _SCOPES) -> tuple[str, bytes]:
        """Makes a workspace with an API key, as the operator; gives both."""
        peer = self.authority()
        created = await peer.call(
            lambda stub: stub.CreateWorkspace,
            authority_pb2.CreateWorkspaceRequest(display_name=name, request_id="req_devstack"),
        )
        key = await peer.call(
            lambda stub: stub.CreateApiKey,
            authority_pb2.CreateApiKeyRequest(
                workspace_id=created.workspace_id, display_name=name, scopes=scopes, request_id="req_devstack"
            ),
        )
        await peer.close()
        return created.workspace_id, key.api_key

    def authority(self, stub: Any = authority_pb2_grpc.AuthorityStub) -> Peer[Any]:
        """Gives a connection to authority, as the operator."""
        config = PeerConfig(name="gateway/authority", address=self.layout.address("authority"))
        return Peer(config, self.operator(), stub)

    async def invite(self, workspace: str, email: str, role: str) -> str:
        """Invites somebody to a workspace, as the operator; gives the address at which they join."""
        peer = self.authority(members_pb2_grpc.MembersStub)
        request = members_pb2.InviteMemberRequest(
            workspace_id=workspace, email=email, role=role, request_id="req_devstack"
        )
        made = await peer.call(lambda stub: stub.InviteMember, request)
        await peer.close()
        return f"{made.join_url}#{made.invitation.decode()}"

    def dashboard_url(self) -> str:
        """Gives where the dashboard of the playground's workspace is entered: by an invitation, until somebody has joined."""
        return asyncio.run(self._dashboard_url())

    async def _dashboard_url(self) -> str:
        workspace, you = (self.layout.home / "workspace_id").read_text(), "you@playground.example"
        peer = self.authority(members_pb2_grpc.MembersStub)
        listed = await peer.call(lambda stub: stub.ListMembers, members_pb2.ListMembersRequest(workspace_id=workspace))
        if any(each.state == "active" for each in listed.members):
            await peer.close()
            return f"{self.layout.dashboard_url}/dashboard"
        for each in listed.members:
            request = members_pb2.RemoveMemberRequest(
                workspace_id=workspace, member_id=each.member_id, request_id="req_devstack"
            )
            await peer.call(lambda stub: stub.RemoveMember, request)
        await peer.close()
        return await self.invite(workspace, you, "owner")

    def playground_url(self) -> str:
        """Gives a fresh URL at which a browser connects an account at the playground Provider."""
        return asyncio.run(self._connect_session())

    async def _connect_session(self) -> str:
        headers = {"authorization": f"Bearer {self.layout.api_key_file.read_text()}"}
        context = ssl.create_default_context(cafile=str(self.public_ca.certificate_file))
        async with httpx2.AsyncClient(verify=context, headers=headers, base_url=self.layout.rest_url) as client:
            configs = (await client.get("/v1/provider-configs")).json()["provider_configs"]
            known = next((each for each in configs if each["issuer"] == self.layout.playground_issuer), None)
            if known is None:
                body = {
                    "issuer": self.layout.playground_issuer,
                    "client_id": "authpipe-playground",
                    "client_secret": secrets.token_hex(16),
                    "scopes": ["profile"],
                    "display_name": "Playground Provider",
                }
                known = (await client.post("/v1/provider-configs", json=body)).raise_for_status().json()
            session = {"end_user_id": "you", "provider_config_ids": [known["id"]]}
            answer = (await client.post("/v1/connect-sessions", json=session)).raise_for_status().json()
        return str(answer["url"])

    def erase(self) -> None:
        """Stops everything and removes what was made, but the Python environment."""
        self.down()
        for path in self.layout.home.iterdir():
            if path.name not in {"venv", "node"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _migrations(process: Process) -> Path:
    package = (
        "authpipe_recordstore" if process.module in {"authpipe_vault", "authpipe_clientsecrets"} else process.module
    )
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise StackError(f"{package} is not installed.")
    return Path(found.origin).parent / "migrations"


def _started(pid: int) -> str:
    """Gives when a process started, by which a reused id is told apart; empty: it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _is_fresh(certificate: Path) -> bool:
    if not certificate.exists():
        return False
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    return parsed.not_valid_after_utc - dt.datetime.now(dt.UTC) > _RENEW_BEFORE
