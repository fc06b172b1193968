"""Metadata that is fetched again: paths may move, hosts may not."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from authpipe_envelope import hosts_digest
from authpipe_oauth_coordinator.domain.discovering import Discovering
from authpipe_oauth_coordinator.domain.provider_configs import described
from authpipe_oauth_coordinator.domain.words import ProviderConfig
from authpipe_providers import Endpoints, client_hosts, urls
from authpipe_sensitive import AuditEntry, DomainError, Status

FOUND = Endpoints(
    "https://as.example",
    "https://as.example/authorize",
    "https://as.example/token",
    "https://as.example/revoke",
    "client_secret_basic",
    iss_required=True,
)


class AwayError(DomainError):
    """Away."""

    reason = "AWAY"
    status = Status.UNAVAILABLE


class Stage:
    """A table with one configuration, and a worker that finds something."""

    def __init__(self) -> None:
        known = described(FOUND)
        hosts = hosts_digest(client_hosts(urls(known), known.values))
        self.config = ProviderConfig(
            "ws", "pc", "as.example", "AS", "c", (), (), FOUND, hosts, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), known
        )
        self.found: Endpoints | DomainError = FOUND
        self.events: list[tuple[str, str]] = []
        self.changed: list[ProviderConfig] = []

    async def claim_discovered(self, _: int, __: float) -> list[ProviderConfig]:
        return [self.config]

    async def change_endpoints(self, config: ProviderConfig, entry: AuditEntry) -> None:
        self.changed.append(config)
        await self.note_config(config, "", entry)

    async def note_config(self, config: ProviderConfig, notice: str, entry: AuditEntry) -> None:
        self.config = dataclasses.replace(config, notice=notice) if notice or config.notice else self.config
        assert (entry.name, entry.target) == ("PROVIDER_CONFIG_CHANGED", "pc")
        self.events.append((entry.outcome, entry.reason))

    async def discover(self, issuer: str, _: str) -> Endpoints:
        assert issuer == "https://as.example"
        if isinstance(self.found, DomainError):
            raise self.found
        return self.found

    async def run(self) -> None:
        await Discovering(self, self, lambda prefix: f"{prefix}_1", 60.0).run()  # type: ignore[arg-type]


async def test_what_is_as_it_was_leaves_no_event() -> None:
    stage = Stage()
    await stage.run()
    assert (stage.events, stage.changed) == ([], [])


@pytest.mark.promise("P37")
async def test_another_path_at_the_same_host_is_taken_and_how_our_client_shows_who_it_is_stays() -> None:
    stage = Stage()
    stage.config = dataclasses.replace(
        stage.config, endpoints=dataclasses.replace(FOUND, auth_method="client_secret_post")
    )
    stage.found = dataclasses.replace(FOUND, token_endpoint="https://as.example/v2/token", pushed_endpoint="")
    await stage.run()
    assert stage.events == [("SUCCEEDED", "METADATA_CHANGED")]
    (changed,) = stage.changed
    assert changed.endpoints.token_endpoint == "https://as.example/v2/token"
    assert changed.endpoints.auth_method == "client_secret_post"
    assert changed.hosts == stage.config.hosts
    assert changed.entry.endpoints == changed.endpoints


@pytest.mark.promise("P37")
@pytest.mark.case(22)
@pytest.mark.parametrize(
    "change",
    [
        {"token_endpoint": "https://evil.example/token"},
        {"revocation_endpoint": "https://evil.example/revoke"},
        {"userinfo_endpoint": "https://evil.example/me"},
    ],
    ids=str,
)
async def test_another_host_is_not_taken_and_is_told_in_the_log(change: dict[str, str]) -> None:
    stage = Stage()
    stage.found = dataclasses.replace(FOUND, **change)  # type: ignore[arg-type]
    await stage.run()
    assert stage.events == [("REFUSED", "HOSTS_CHANGED")]
    assert stage.changed == []
    assert stage.config.notice == "HOSTS_CHANGED", "its owner is told"
    stage.found = FOUND
    for _ in range(2):
        await stage.run()
    assert stage.events[1:] == [("SUCCEEDED", "METADATA_AS_BEFORE")], "once"
    assert stage.config.notice == ""


@pytest.mark.parametrize(
    "found",
    [
        AwayError(),
        dataclasses.replace(FOUND, issuer="https://other.example"),
        dataclasses.replace(FOUND, token_endpoint="http://as.example/token"),
    ],
    ids=["away", "another issuer", "no TLS"],
)
async def test_what_is_away_or_makes_no_sense_changes_nothing(found: Endpoints | DomainError) -> None:
    stage = Stage()
    stage.found = found
    await stage.run()
    assert (stage.events, stage.changed) == ([], [])
