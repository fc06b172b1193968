"""Puts authpipe-admin together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

from authpipe_rpc import Peer  # first: it sets grpc's cipher list
import typer
from pydantic import ValidationError
from rich.console import Console

from authpipe.audit.v1 import audit_pb2_grpc
from authpipe.authority.v1 import authority_pb2_grpc, members_pb2_grpc
from authpipe.clientsecrets.v1 import clientsecrets_pb2_grpc
from authpipe.keyservice.v1 import administration_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2_grpc
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe_admin.config import Config
from authpipe_admin import catalog, containment, incidents, keys, log, members
from authpipe_admin.peers import (
    AuthorityPeer,
    ContainmentPeer,
    CoordinatorPeer,
    IncidentsPeer,
    KeyAdministrationPeer,
    LogPeer,
    MembersPeer,
    StorePeer,
)

_DEFAULT = Path(os.environ.get("XDG_CONFIG_HOME", str(Path.home() / ".config"))) / "authpipe" / "admin.json"
_console = Console(stderr=True)
_STORES: dict[str, Any] = {
    "vault": vault_pb2_grpc.VaultStub,
    "clientsecrets": clientsecrets_pb2_grpc.ClientSecretsStub,
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs an Authpipe installation. Every act is in the audit log, under the name in your certificate.",
)


@app.callback()
def configure(
    context: typer.Context,
    config: Annotated[
        Path, typer.Option(envvar="AUTHPIPE_ADMIN_CONFIG", help="Your certificate, and where the key services are.")
    ] = _DEFAULT,
) -> None:
    """Runs an Authpipe installation. Every act is in the audit log, under the name in your certificate."""
    context.obj = Services(config)


class Services:
    """The services that an operator reaches.

    Args:
        file: The configuration file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def keyservice(self, domain: str) -> KeyAdministrationPeer:
        """Gives the administration of a key domain."""
        config = self._config()
        if domain not in config.keyservices:
            known = ", ".join(sorted(config.keyservices))
            _stop(f"There is no key domain of this name. The configuration has: {known}.")
        stub = administration_pb2_grpc.KeyAdministrationStub
        peer: Peer[Any] = Peer(config.keyservices[domain], config.files, stub)
        return KeyAdministrationPeer(peer)

    def coordinator(self) -> CoordinatorPeer:
        """Gives the coordinator."""
        config = self._config()
        if config.coordinator is None:
            _stop(f"The configuration file {self._file} does not say where the coordinator is.")
        peer: Peer[Any] = Peer(config.coordinator, config.files, coordinator_pb2_grpc.CoordinatorStub)
        return CoordinatorPeer(peer)

    def store(self, name: str) -> StorePeer:
        """Gives vault or clientsecrets."""
        config = self._config()
        if name not in config.stores:
            _stop(f"The configuration file {self._file} does not say where {name} is.")
        return StorePeer(Peer(config.stores[name], config.files, _STORES[name]))

    def log(self, trail: int) -> LogPeer:
        """Gives the log, of one trail."""
        config = self._config()
        if config.audit is None:
            _stop(f"The configuration file {self._file} does not say where audit is.")
        return LogPeer(Peer(config.audit, config.files, audit_pb2_grpc.AuditStub), trail)

    def incidents(self) -> IncidentsPeer:
        """Gives the incidents."""
        config = self._config()
        if config.audit is None:
            _stop(f"The configuration file {self._file} does not say where audit is.")
        return IncidentsPeer(Peer(config.audit, config.files, audit_pb2_grpc.IncidentsStub))

    def containment(self) -> ContainmentPeer:
        """Gives rotations of tokens."""
        config = self._config()
        if config.coordinator is None:
            _stop(f"The configuration file {self._file} does not say where the coordinator is.")
        return ContainmentPeer(Peer(config.coordinator, config.files, coordinator_pb2_grpc.ContainmentStub))

    def authority(self) -> AuthorityPeer:
        """Gives authority."""
        config = self._config()
        if config.authority is None:
            _stop(f"The configuration file {self._file} does not say where authority is.")
        return AuthorityPeer(Peer(config.authority, config.files, authority_pb2_grpc.AuthorityStub))

    def members(self) -> MembersPeer:
        """Gives a workspace's members."""
        config = self._config()
        if config.authority is None:
            _stop(f"The configuration file {self._file} does not say where authority is.")
        return MembersPeer(Peer(config.authority, config.files, members_pb2_grpc.MembersStub))

    def _config(self) -> Config:
        try:
            return Config.model_validate_json(self._file.read_bytes())
        except OSError:
            _stop(f"The configuration file {self._file} cannot be read. Name another with --config.")
        except ValidationError as error:
            wrong = "; ".join(".".join(map(str, each["loc"])) + ": " + each["type"] for each in error.errors())
            _stop(f"The configuration file {self._file} is wrong: {wrong}.")


def _stop(sentence: str) -> NoReturn:
    _console.print(sentence, soft_wrap=True)
    raise typer.Exit(2) from None


app.add_typer(keys.app, name="keys")
app.add_typer(catalog.app, name="catalog")
app.add_typer(incidents.app, name="incidents")
app.add_typer(containment.app, name="contain")
app.add_typer(members.app, name="members")
app.add_typer(log.workspaces, name="workspaces")
app.command("verify-store")(log.verify_store)


def main() -> None:
    """Runs the command that was typed."""
    app()


if __name__ == "__main__":
    main()
