"""PostgreSQL clusters that accept only mutual TLS 1.3, each role entering only its own database.

No Unix socket and no trust line: set-up too comes with a certificate (the superuser `dba`). The server refuses to run as
root, so as root it runs as the user `postgres`, which may then read through folders that are ours alone.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from authpipe_testing.ca import CertificateAuthority, Leaf, write_private

_USER = "postgres"
# Held so that their ends are noticed: a child that nobody waits for stays as a zombie.
_SERVERS: dict[Path, subprocess.Popen[bytes]] = {}
_STARTED_WITHIN_SECONDS = 60
_ISSUING = threading.Lock()
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster.

    Args:
        name: Its name; its host name is ``postgres-<name>.authpipe.internal``.
        folder: Its data folder.
        port: Its port on loopback.
        ca: The CA of databases and their clients.
        certificates: Where certificates are.
        databases: The databases: each is also the name of its role, beside `<name>_owner`.
        log: Its log.
        more_roles: Further roles that enter a database: the database's name, the role's.
    """

    name: str
    folder: Path
    port: int
    ca: CertificateAuthority
    certificates: Path
    databases: tuple[str, ...]
    log: Path
    more_roles: tuple[tuple[str, str], ...] = ()

    @property
    def host(self) -> str:
        """The name in its certificate."""
        return f"postgres-{self.name}.authpipe.internal"

    def client(self, role: str) -> Leaf:
        """Gives the certificate of a role."""
        leaf = Leaf(self.certificates / f"db-{role}.pem", self.certificates / f"db-{role}.key")
        # Clusters are started side by side and share a role: two that issue its certificate at once leave one's key
        # with the other's certificate.
        with _ISSUING:
            if not leaf.certificate.exists():
                self.ca.issue(self.certificates, f"db-{role}", common_name=role)
        return leaf

    def conninfo(self, role: str, database: str) -> dict[str, str | int]:
        """Gives libpq's keywords for a role."""
        leaf = self.client(role)
        return {
            "host": self.host,
            "hostaddr": "127.0.0.1",
            "port": self.port,
            "dbname": database,
            "user": role,
            "sslmode": "verify-full",
            "sslcert": str(leaf.certificate),
            "sslkey": str(leaf.key),
            "sslrootcert": str(self.ca.certificate_file),
            "ssl_min_protocol_version": "TLSv1.3",
            "connect_timeout": 5,
        }

    def prepare(self) -> None:
        """Makes the cluster unless there is one, and writes its configuration."""
        if not (self.folder / "PG_VERSION").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(mode=0o700, parents=True)
            self._own()
            command = [_binary("initdb"), "-D", str(self.folder), "-U", "dba", "-A", "reject", "-E", "UTF8"]
            subprocess.run(
                [*_as_database_user(), *command, "--locale=C.UTF-8", "--no-sync", "--no-instructions"],
                check=True,
                capture_output=True,
                cwd="/",
            )
        server = self.ca.issue(self.folder, "server", common_name=self.host, dns=(self.host,))
        shutil.copy(self.ca.certificate_file, self.folder / "ca.pem")
        write_private(self.folder / "authpipe.conf", self._settings(server).encode())
        marker = "include 'authpipe.conf'"
        main = self.folder / "postgresql.conf"
        if marker not in main.read_text():
            with main.open("a") as file:
                file.write(f"\n{marker}\n")
        roles = ["dba", *(role for name in self.databases for role in self._roles(name))]
        lines = [f"hostssl {name} {','.join(self._roles(name))} 127.0.0.1/32 cert map=svc" for name in self.databases]
        lines.append("hostssl all dba 127.0.0.1/32 cert map=svc")
        write_private(self.folder / "pg_hba.conf", ("\n".join(lines) + "\n").encode())
        write_private(self.folder / "pg_ident.conf", "".join(f"svc {role} {role}\n" for role in roles).encode())
        self._own()

    def _roles(self, database: str) -> list[str]:
        return [database, f"{database}_owner", *(role for name, role in self.more_roles if name == database)]

    def _settings(self, server: Leaf) -> str:
        return f"""
listen_addresses = '127.0.0.1'
port = {self.port}
unix_socket_directories = ''
ssl = on
ssl_min_protocol_version = 'TLSv1.3'
ssl_cert_file = '{server.certificate.name}'
ssl_key_file = '{server.key.name}'
ssl_ca_file = 'ca.pem'
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '128MB'
jit = off
log_statement = 'none'
log_min_error_statement = 'panic'
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
"""

    def start(self) -> None:
        """Starts the server and waits until it takes connections.

        Raises:
            RuntimeError: It did not start; its log says why, and the error the end of it.
        """
        if self.is_running():
            return
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            server = _SERVERS[self.folder] = subprocess.Popen(
                [*_as_database_user(), _binary("postgres"), "-D", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        # After a crash it first syncs its whole folder, which on a busy disk takes its time.
        ends = time.monotonic() + _STARTED_WITHIN_SECONDS
        while server.poll() is None and time.monotonic() < ends:
            if self._answers():
                return
            time.sleep(0.1)
        last = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
        raise RuntimeError(f"PostgreSQL {self.name} did not start; see {self.log}, which ends:\n{last}")

    def stop(self) -> None:
        """Stops the server at once; what was committed is safe."""
        command = [_binary("pg_ctl"), "stop", "-D", str(self.folder), "-m", "fast", "-w", "-t", "20"]
        subprocess.run([*_as_database_user(), *command], check=False, capture_output=True, cwd="/")
        if server := _SERVERS.pop(self.folder, None):
            server.wait(20)

    def crash(self) -> None:
        """Kills the server and all its processes, as a machine that dies does; what was committed is found when it starts."""
        server = _SERVERS.pop(self.folder)
        server.send_signal(signal.SIGSTOP)  # it starts nobody while its processes are counted
        backends = _children(server.pid)
        for pid in (server.pid, *backends):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait(20)
        while any(Path(f"/proc/{pid}").exists() for pid in backends):
            time.sleep(0.01)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def pid(self) -> int:
        """Gives the process id of the server; 0: it does not run."""
        try:
            pid = int((self.folder / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return 0
        return pid

    def is_running(self) -> bool:
        """Says whether the server runs."""
        return self.pid() != 0

    def ensure_databases(self) -> None:
        """Makes roles and databases that are not there. A role can do nothing but what migrations grant it."""
        with psycopg.connect(**self.conninfo("dba", "postgres"), autocommit=True) as connection:  # type: ignore[arg-type]
            for name in self.databases:
                for role in self._roles(name):
                    if not connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone():
                        connection.execute(f"create role {role} login")
                if not connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
                    connection.execute(f"create database {name} owner {name}_owner")
                    connection.execute(f"revoke all on database {name} from public")
                    connection.execute(f"grant connect on database {name} to {', '.join(self._roles(name))}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(**self.conninfo("dba", "postgres")).close()  # type: ignore[arg-type]
        except psycopg.OperationalError:
            return False
        return True

    def _own(self) -> None:
        if os.geteuid() == 0:
            user = pwd.getpwnam(_USER)
            subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", str(self.folder)], check=True)


def _as_database_user() -> list[str]:
    """Gives the prefix by which a command runs as the database's user; empty for an ordinary user."""
    if os.geteuid() != 0:
        return []
    # The folders above are ours alone (0700): the one capability lets it pass through them.
    status = Path("/proc/self/status").read_text()
    bounding = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd")), 16)
    if bounding & 1 << _CAP_DAC_READ_SEARCH:
        capability = "+dac_read_search"
    elif bounding & 1 << _CAP_DAC_OVERRIDE:
        capability = "+dac_override"
    else:
        capability = ""
    extra = [f"--inh-caps={capability}", f"--ambient-caps={capability}"] if capability else []
    return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", *extra]


def _binary(name: str) -> str:
    found = shutil.which(name) if name != "postgres" else None
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    for place in places or ([Path(found)] if found else []):
        return str(place)
    raise FileNotFoundError(
        "PostgreSQL is not installed: apt install postgresql, dnf install postgresql-server, or brew install postgresql."
    )


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"PPid:\t{parent}\n" in status.read_text():
                found.append(int(status.parent.name))
    return found
