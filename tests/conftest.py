"""The real system, once for the whole run: its own folder, its own ports, logs at debug, every trace kept."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from aiosmtpd.controller import Controller
from authpipe_devstack.layout import PROCESSES
from authpipe_devstack.stack import Stack
from authpipe_keyservice.domain.keys import ck_aad, dek_aad, kek_label, unwrap_ck
from authpipe_keyservice.errors import KeyTamperedError
from authpipe_sensitive import Secret
from authpipe_testing.api import running_api
from authpipe_testing.customer import Customer
from authpipe_testing.member import Member
from authpipe_testing.ports import free_ports
from authpipe_testing.oidc import OidcProvider, run_oidc_provider
from authpipe_testing.softhsm import find_module
from authpipe_witness.home import Home

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A witness that knows the log's keys once there are some, and is known to the log."""
    return Home.make(tmp_path_factory.mktemp("witness") / "home", "witness.example/w1", [])


class Letters:
    """A mail server that takes what herald sends to workspaces' owners.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._got: list[Any] = []
        self._server: Controller | None = None

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        """Takes a letter."""
        self._got.append(envelope)
        return "250 OK"

    def start(self, certificates: Path) -> None:
        """Listens, with TLS from the first byte."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificates / "public.pem", certificates / "public.key")
        self._server = Controller(self, hostname="127.0.0.1", port=self.port, ssl_context=context)
        self._server.start()

    def stop(self) -> None:
        """Stops."""
        if self._server is not None:
            self._server.stop()

    def to(self, address: str) -> list[str]:
        """Gives what came for an address."""
        return [each.content.decode() for each in self._got if each.rcpt_tos == [address]]


@pytest.fixture(scope="session")
def letters() -> Letters:
    """The mail server of workspaces' owners."""
    return Letters(free_ports(1)[0])


@pytest.fixture(scope="session")
def stack(witness: Home, letters: Letters) -> Iterator[Stack]:
    """The whole system, from nothing; each process of a parallel run has one of its own."""
    home = ROOT / ".authpipe" / "-".join(filter(None, ("test", os.environ.get("PYTEST_XDIST_WORKER"))))
    # Most tests of refresh want a token to end before anybody looks after it; test_schedule.py turns this on.
    # The log states its chains every second, and not every thirty: an auditor need not wait.
    own = {
        "coordinator": {"refresh_ahead": False},
        "audit": {"statement_seconds": 1.0, "witnesses": [str(witness.key)]},
        "herald": {
            "owners": {
                "name": "owners",
                "host": "127.0.0.1",
                "port": letters.port,
                "sender": "authpipe@example.com",
                "ca": str(home / "ca" / "public-ca.pem"),
                "dashboard_url": "https://dashboard.example",
            }
        },
    }
    running = Stack(home, lambda _: None, log_level="debug", trace_ratio=1.0)
    running.erase()
    running = Stack(home, lambda _: None, log_level="debug", trace_ratio=1.0, settings=own)
    running.up()
    letters.start(running.layout.certificates)
    yield running
    running.down()
    letters.stop()


@pytest.fixture(scope="session")
def api(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Provider's API that tells what it was sent."""
    folder = tmp_path_factory.mktemp("api")
    leaf = stack.public_ca.issue(folder, "api", common_name="api", dns=("localhost",), addresses=("127.0.0.1",))
    with running_api(leaf.certificate, leaf.key) as server:
        yield server


@pytest.fixture(scope="session")
def new_customer(stack: Stack) -> Iterator[Callable[..., Customer]]:
    """Makes customers, each with a workspace of its own."""
    made: list[Customer] = []

    def make(*scopes: str) -> Customer:
        workspace, key = asyncio.run(
            stack.create_workspace("test", scopes) if scopes else stack.create_workspace("test")
        )
        made.append(Customer(stack.layout.rest_url, str(stack.public_ca.certificate_file), key.decode(), workspace))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def customer(new_customer: Callable[..., Customer]) -> Customer:
    """A customer."""
    return new_customer()


@pytest.fixture(scope="session")
def stranger(new_customer: Callable[..., Customer]) -> Customer:
    """A customer with another workspace."""
    return new_customer()


@pytest.fixture(scope="session")
def new_member(stack: Stack) -> Iterator[Callable[..., Member]]:
    """Makes members of a customer's workspace, who are signed in."""
    made: list[Member] = []

    def make(customer: Customer, role: str = "owner") -> Member:
        member = Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file))
        made.append(member)
        email = f"{role}-{len(made)}@people.example"
        assert member.join(asyncio.run(stack.invite(customer.workspace, email, role))).status_code == 204
        return member

    yield make
    for each in made:
        each.http.close()


@pytest.fixture(scope="session")
def config(customer: Customer, stack: Stack) -> str:
    """A provider configuration of the customer at the playground Provider."""
    return str(customer.configure(stack.layout.playground_issuer)["id"])


@pytest.fixture
def superuser(stack: Stack) -> Callable[[str, str], psycopg.Connection[Any]]:
    """Opens a database as PostgreSQL's superuser: cluster, database."""

    def connect(cluster: str, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**stack.clusters[cluster].conninfo("dba", database), autocommit=True)  # type: ignore[arg-type]

    return connect


@pytest.fixture
def aged(superuser: Callable[[str, str], psycopg.Connection[Any]]) -> Callable[[str], None]:
    """Lets a connection's last refresh be a minute ago, at keyservice too: one may be forced every ten seconds."""

    def age(connection: str) -> None:
        with superuser("core", "coordinator") as core:
            core.execute(
                "update connections set refreshed_at = now() - interval '1 minute' where id = %s", (connection,)
            )
        with superuser("core", "keyservice_user_credentials") as core:
            core.execute("update connection_keys set last_forced_ms = 0 where connection_id = %s", (connection,))

    return age


class Playground:
    """The playground Provider, as its operator sees it."""

    def __init__(self, stack: Stack) -> None:
        self._http = httpx2.Client(
            base_url=stack.layout.playground_issuer,
            verify=ssl.create_default_context(cafile=str(stack.public_ca.certificate_file)),
            trust_env=False,
        )

    def close(self) -> None:
        """Closes all connections."""
        self._http.close()

    def counts(self) -> dict[str, int]:
        """Says how often which request came."""
        return dict(self._http.get("/playground/counts").json())

    def set_life(self, seconds: int) -> None:
        """Sets how long new access tokens live."""
        self._http.post("/playground/life", data={"seconds": str(seconds)})

    def end_family(self, access_token: str) -> None:
        """Ends a grant: its tokens and all that came from them."""
        self._http.post("/playground/end", data={"access_token": access_token}).raise_for_status()

    def alarms(self) -> list[dict[str, Any]]:
        """Gives what herald has told: the headers and body of each message."""
        return list(self._http.get("/playground/alarms").json())

    def knows(self, token: str) -> bool:
        """Says whether an access token works."""
        return self._http.get("/me", headers={"authorization": f"Bearer {token}"}).status_code == 200


@pytest.fixture(scope="session")
def playground(stack: Stack) -> Iterator[Playground]:
    """The playground Provider."""
    provider = Playground(stack)
    yield provider
    provider.close()


@pytest.fixture(scope="session")
def oidc_provider(stack: Stack) -> Iterator[OidcProvider]:
    """A certified OpenID Provider, over TLS 1.3."""
    layout = stack.layout
    redirect_uri = f"{layout.rest_url}/oauth/callback"
    with run_oidc_provider(
        ROOT, layout.home, layout.certificates, stack.public_ca.certificate_file, redirect_uri
    ) as provider:
        yield provider


_UNWRAP = """
import asyncio, json, sys
from pathlib import Path
from authpipe_keyservice.errors import KeyTamperedError
from authpipe_keyservice.hsm import Hsm
async def main():
    asked = json.load(sys.stdin)
    hsm = Hsm(Path(asked["module"]), asked["token"], Path(asked["pin"]))
    await hsm.open()
    found = []
    for label, wrapped, aad in asked["deks"]:
        try:
            found.append((await hsm.unwrap(label, bytes.fromhex(wrapped), bytes.fromhex(aad))).hex())
        except KeyTamperedError:  # other tests swap rows
            found.append("")
    print(json.dumps(found))
    await hsm.close()
asyncio.run(main())
"""


def unwrap_all(stack: Stack, superuser: Callable[[str, str], psycopg.Connection[Any]], key_domain: str) -> list[Secret]:
    """Unwraps every DEK and connection key of a key domain, as whoever has its database, its token and the PIN."""
    folder = stack.layout.home / "hsm" / key_domain
    with superuser("core", f"keyservice_{key_domain.replace('-', '_')}") as database:
        deks = database.execute("select workspace_id, version, kek_version, wrapped from deks").fetchall()
        rows = database.execute(
            "select workspace_id, connection_id, version, dek_version, wrapped from connection_keys"
            " where state <> 'destroyed'"
        ).fetchall()
    asked = {
        "module": str(find_module()),
        "token": key_domain,
        "pin": str(folder / "pin"),
        "deks": [
            (kek_label(key_domain, kek), bytes(wrapped).hex(), dek_aad(key_domain, workspace, version).hex())
            for workspace, version, kek, wrapped in deks
        ],
    }
    done = subprocess.run(
        [sys.executable, "-c", _UNWRAP],
        input=json.dumps(asked),
        env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    unwrapped = zip(deks, json.loads(done.stdout), strict=True)
    opened = {(row[0], row[1]): Secret(bytes.fromhex(dek)) for row, dek in unwrapped if dek}
    found = list(opened.values())
    for workspace, connection, version, dek_version, wrapped in rows:
        aad = ck_aad(key_domain, workspace, connection, version)
        with contextlib.suppress(KeyError, KeyTamperedError):
            found.append(unwrap_ck(opened[workspace, dek_version], bytes(wrapped), aad))
    return found


@pytest.fixture
def connection_keys(
    stack: Stack, superuser: Callable[[str, str], psycopg.Connection[Any]]
) -> Callable[[str], list[Secret]]:
    """Unwraps every DEK and connection key of a key domain, as whoever has its database, its token and the PIN."""
    return lambda key_domain: unwrap_all(stack, superuser, key_domain)


def wait_for(condition: Callable[[], Any], seconds: float = 40) -> Any:
    """Waits until a condition holds and gives what it gave; the time is for a slow machine, and costs nothing on others."""
    ends = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > ends:
            return found
        time.sleep(0.1)


@pytest.fixture(scope="session", name="wait_for")
def _wait_for() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise RuntimeError("Chromium is not installed; make test installs it.")


@dataclass(frozen=True)
class Patch:
    """A control that is switched off in one process.

    Args:
        process: The process.
        module: The module that has the control.
        old: How it is written.
        new: What stands there instead.
    """

    process: str
    module: str
    old: str
    new: str


def stop(stack: Stack, name: str) -> None:
    """Kills a process and waits until it is gone."""
    stack.send(name, signal.SIGKILL)
    assert wait_for(lambda: not stack.pid(name))


@contextmanager
def mutated(stack: Stack, patches: Sequence[Patch]) -> Iterator[None]:
    """Runs the system with controls switched off, and mends it again."""
    names = list(dict.fromkeys(patch.process for patch in patches))
    try:
        for name in names:
            file = stack.layout.home / f"mutant-{name}.json"
            module = next(process.module for process in PROCESSES if process.name == name)
            own = [(patch.module, patch.old, patch.new) for patch in patches if patch.process == name]
            file.write_text(json.dumps({"module": module, "patches": own}))
            stop(stack, name)
            stack.start(name, "authpipe_testing.mutant", {"AUTHPIPE_MUTANT": str(file)})
        time.sleep(0.6)  # their peers connect again within 0.3 s
        yield
    finally:
        for name in names:
            if stack.pid(name):
                stop(stack, name)
            stack.start(name)
        time.sleep(0.6)


@pytest.fixture
def mutant(stack: Stack) -> Callable[..., AbstractContextManager[None]]:
    """Runs the system with controls switched off: process, module, old text, new text."""
    return lambda *patches: mutated(stack, [Patch(*patch) for patch in patches])


@pytest.fixture
def notices(stack: Stack, new_customer: Callable[..., Customer], request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs an attack of this module against the system with a control switched off: it has to see it, or it sees nothing."""

    def run(attack: Callable[..., Any], *patches: tuple[str, str, str, str], **given: Any) -> None:
        with mutated(stack, [Patch(*patch) for patch in patches]):
            # The mutant works: what the attack sees is the control, and not a system that is down.
            works = new_customer()
            connection = works.import_api_key("sk_live_the-mutant-works-0123456789")["id"]
            assert works.token(connection).status_code == 200
            names = inspect.signature(attack).parameters
            arguments = {name: given[name] if name in given else request.getfixturevalue(name) for name in names}
            try:
                answer = attack(**arguments)
                if inspect.iscoroutine(answer):
                    asyncio.run(answer)
            except (AssertionError, KeyError, pytest.fail.Exception):
                return
            pytest.fail("The attack did not see that its control was switched off.")

    return run


def pytest_report_header() -> str:
    """Says who runs this: as root and as an ordinary user the system starts differently."""
    return f"user id: {os.getuid()}"
