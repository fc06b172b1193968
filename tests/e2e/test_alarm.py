"""The day on which something is stolen: what is found, who is told, and what takes access away in one act."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer
from authpipe_testing.member import Member
from authpipe_transparency import Checkpoint, Note, commitment, leaf_hash, verify_inclusion

Admin = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def admin(stack: Stack) -> Admin:
    """Runs authpipe-admin as the operator."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        config = str(stack.layout.configs / "operator.json")
        command = [sys.executable, "-m", "authpipe_admin", "--config", config, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "250"})

    return run


def workspace_of(customer: Customer, superuser: Any) -> str:
    connection = customer.get("/connections").json()["connections"][0]["id"]
    with superuser("core", "coordinator") as core:
        row = core.execute("select workspace_id from connections where id = %s", (connection,)).fetchone()
    return str(row[0])


def incidents(customer: Customer, detector: str) -> list[dict[str, Any]]:
    found = customer.get("/incidents").json()["incidents"]
    return [each for each in found if each["detector"] == detector]


def events(customer: Customer, name: str) -> list[dict[str, Any]]:
    return list(customer.get("/audit/events", event=name).json()["events"])


@pytest.mark.promise("P26")
def test_whoever_touches_a_decoy_is_an_incident_with_proved_evidence_and_somebody_is_told(
    new_customer: Callable[..., Customer], playground: Any, stack: Stack, admin: Admin, wait_for: Callable[..., Any]
) -> None:
    customer = new_customer()
    decoy = customer.import_api_key("sk_live_opens-nothing-at-all-0123456789")["id"]
    assert customer.post(f"/connections/{decoy}/decoy").status_code == 204
    shown = customer.get(f"/connections/{decoy}").json()
    assert "decoy" not in json.dumps(shown)
    assert customer.token(decoy).status_code == 200, "whoever touches it does not notice"
    (incident,) = wait_for(lambda: incidents(customer, "HONEYTOKEN_USED"), 30)
    assert (incident["severity"], incident["subject"], incident["state"]) == ("critical", decoy, "open")

    # Evidence: the log itself proves it.
    def proved() -> Any:
        found = customer.get(f"/incidents/{incident['id']}").json()
        return found if all(each["proof"] for each in found["evidence"]) else None

    evidence = wait_for(proved, 20)["evidence"]
    shown_events = [json.loads(each["record"])["event"] for each in evidence]
    assert {event["target"] for event in shown_events} == {decoy}
    uses = [event for event in shown_events if event["name"] == "RECORD_KEY_RELEASED"]
    assert [event["purpose"] for event in uses] == ["serve"]
    for each in evidence:
        head, _, note = each["proof"].partition("\n\n")
        path = [base64.b64decode(line) for line in head.split("\n")[2:]]
        tree = Checkpoint.parse(Note.parse(note).text)
        entry = leaf_hash(commitment(bytes.fromhex(each["salt"]), each["record"].encode()))
        verify_inclusion(each["leaf_index"], tree.size, entry, path, tree.root)

    # Told, over a webhook whose signature (Standard Webhooks) is good.
    def told() -> Any:
        return [each for each in playground.alarms() if json.loads(each["body"])["incident_id"] == incident["id"]]

    first = wait_for(told, 30)[0]
    headers = {name.lower(): value for name, value in first["headers"].items()}
    secret = base64.b64decode(stack.layout.alarm_secret_file.read_bytes().removeprefix(b"whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{first['body']}".encode()
    expected = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert json.loads(first["body"])["severity"] == "CRITICAL"

    # An operator sees it, looks into it, tells the customer, and closes it; each step is in the log and is told.
    assert incident["id"] in admin("incidents", "list").stdout
    assert "within 23 h" in admin("incidents", "list").stdout
    said = admin("incidents", "show", incident["id"]).stdout
    assert "HONEYTOKEN_USED" in said
    assert "RECORD_KEY_RELEASED" in said
    for step in ("acknowledge", "notified", "close"):
        done = admin("incidents", step, incident["id"])
        assert done.returncode == 0, done.stderr
    again = admin("incidents", "acknowledge", incident["id"])
    assert again.returncode == 2
    assert "forward only" in again.stderr
    assert incidents(customer, "HONEYTOKEN_USED")[0]["state"] == "closed"
    assert wait_for(lambda: len(events(customer, "INCIDENT_CHANGED")) == 3, 20)
    assert wait_for(lambda: len(told()) == 4, 30)


@pytest.mark.promise("P26")
def test_ids_that_are_guessed_are_found(new_customer: Callable[..., Customer], wait_for: Callable[..., Any]) -> None:
    customer = new_customer()
    for number in range(25):
        assert customer.token(f"con_{number:024x}").status_code == 404
    (incident,) = wait_for(lambda: incidents(customer, "API_KEY_ENUMERATES"), 30)
    assert incident["subject"].startswith("api_key:key_")
    assert wait_for(lambda: events(customer, "RECORDS_REFUSED"), 20)[0]["reason"] == "RECORD_NOT_FOUND"


@pytest.mark.case(16)
def test_an_incident_is_nobody_elses(
    new_customer: Callable[..., Customer], stranger: Customer, wait_for: Callable[..., Any]
) -> None:
    customer = new_customer()
    decoy = customer.import_api_key("sk_live_opens-nothing-at-all-0123456789")["id"]
    assert stranger.post(f"/connections/{decoy}/decoy").status_code == 404
    customer.post(f"/connections/{decoy}/decoy")
    customer.token(decoy)
    (incident,) = wait_for(lambda: incidents(customer, "HONEYTOKEN_USED"), 30)
    assert stranger.get(f"/incidents/{incident['id']}").json()["reason"] == "NOT_FOUND"
    assert incident["id"] not in {each["id"] for each in stranger.get("/incidents").json()["incidents"]}


def test_what_is_refreshed_is_no_decoy(new_customer: Callable[..., Customer], stack: Stack) -> None:
    customer = new_customer()
    connection = customer.connect(str(customer.configure(stack.layout.playground_issuer)["id"]))
    answer = customer.post(f"/connections/{connection}/decoy")
    assert (answer.status_code, answer.json()["reason"]) == (409, "CONNECTION_NOT_A_DECOY")


@pytest.fixture
def connected(new_customer: Callable[..., Customer], stack: Stack) -> tuple[Customer, str, list[str]]:
    """A customer, his provider configuration, and three connections of it."""
    customer = new_customer()
    config = str(customer.configure(stack.layout.playground_issuer)["id"])
    return customer, config, [customer.connect(config, f"user-{number}") for number in range(3)]


def tokens(customer: Customer, connections: list[str]) -> dict[str, str]:
    return {each: str(customer.token(each).json()["access_token"]) for each in connections}


def ended(customer: Customer, rotation: str) -> Any:
    found = customer.get(f"/rotations/{rotation}").json()
    return found if found["end_time"] else None


@pytest.mark.promise("P27")
def test_every_token_of_a_workspace_is_rotated_in_one_act(
    connected: tuple[Customer, str, list[str]], wait_for: Callable[..., Any]
) -> None:
    customer, _, connections = connected
    key = customer.import_api_key("sk_live_only-its-owner-can-replace-it")["id"]
    before = tokens(customer, connections)
    dry = customer.post("/rotations", {"dry_run": True}).json()
    assert (dry["id"], dry["total_count"], dry["irreplaceable_count"]) == ("", 3, 1)
    assert tokens(customer, connections) == before, "a dry run does nothing"
    begun = customer.post("/rotations", {})
    assert begun.status_code == 202
    done = wait_for(lambda: ended(customer, begun.json()["id"]), 60)
    assert (done["rotated_count"], done["failed_count"]) == (3, 0)
    after = tokens(customer, connections)
    assert all(after[each] != before[each] for each in connections)
    assert customer.token(key).status_code == 200
    (told,) = wait_for(lambda: events(customer, "ROTATION_ENDED"), 20)
    (begun_event,) = events(customer, "ROTATION_BEGUN")
    assert (begun_event["count"], told["count"], told["outcome"]) == (3, 3, "succeeded")
    assert begun_event["request_id"] == told["request_id"]


@pytest.mark.promise("P27")
def test_only_what_was_named_is_rotated(
    connected: tuple[Customer, str, list[str]], stranger: Customer, wait_for: Callable[..., Any]
) -> None:
    customer, config, connections = connected
    before = tokens(customer, connections)
    begun = customer.post("/rotations", {"connection_id": connections[0]}).json()
    wait_for(lambda: ended(customer, begun["id"]), 60)
    after = tokens(customer, connections)
    assert [after[each] != before[each] for each in connections] == [True, False, False]
    assert customer.post("/rotations", {"provider_config_id": config, "dry_run": True}).json()["total_count"] == 3
    for body in ({"connection_id": connections[1]}, {"provider_config_id": config}):
        assert stranger.post("/rotations", body).status_code == 404
    assert stranger.get(f"/rotations/{begun['id']}").status_code == 404
    both = customer.post("/rotations", {"connection_id": connections[0], "provider_config_id": config})
    assert (both.status_code, both.json()["reason"]) == (400, "REQUEST_MALFORMED")


@pytest.mark.promise("P27")
def test_a_rotation_goes_on_when_coordinator_is_killed(
    connected: tuple[Customer, str, list[str]],
    stack: Stack,
    superuser: Callable[[str, str], Any],
    wait_for: Callable[..., Any],
) -> None:
    customer, _, connections = connected
    before = tokens(customer, connections)
    begun = customer.post("/rotations", {}).json()
    stack.send("coordinator", signal.SIGKILL)
    assert wait_for(lambda: not stack.pid("coordinator"))
    # What it had taken up is somebody else's after a minute; here it is at once.
    with superuser("core", "coordinator") as core:
        core.execute("update rotation_items set claimed_until = '-infinity'")
        core.execute("update leases set lives_until = '-infinity'")
    stack.start("coordinator")
    done = wait_for(lambda: ended(customer, begun["id"]), 90)
    assert (done["rotated_count"], done["failed_count"]) == (3, 0)
    after = tokens(customer, connections)
    assert all(after[each] != before[each] for each in connections)
    assert len(wait_for(lambda: events(customer, "ROTATION_ENDED"), 20)) == 1


@pytest.mark.promise("P27")
def test_an_operator_rotates_and_sees_how_far_it_is(
    connected: tuple[Customer, str, list[str]], admin: Admin, superuser: Any
) -> None:
    customer, _, connections = connected
    workspace = workspace_of(customer, superuser)
    before = tokens(customer, connections)
    dry = admin("contain", "rotate", "--workspace", workspace, "--dry-run")
    assert "3 tokens would be rotated. Nothing was done." in dry.stdout, dry.stderr
    done = admin("contain", "rotate", "--workspace", workspace)
    assert done.returncode == 0, done.stderr
    assert "3 tokens are rotated, 0 could not be." in done.stdout
    assert all(tokens(customer, connections)[each] != before[each] for each in connections)
    rotation = done.stdout.split("Rotation ")[1].split()[0]
    assert "3 tokens are rotated" in admin("contain", "rotation", rotation).stdout
    # Everything is said, never left out.
    assert admin("contain", "rotate").returncode == 2
    assert admin("contain", "rotate", "--everything", "--workspace", workspace).returncode == 2
    assert "tokens would be rotated" in admin("contain", "rotate", "--everything", "--dry-run").stdout


@pytest.mark.promise("P27")
def test_a_frozen_workspace_serves_nothing_loses_nothing_and_is_unfrozen_by_an_operator_alone(
    connected: tuple[Customer, str, list[str]], admin: Admin, superuser: Any, stranger: Customer, wait_for: Any
) -> None:
    customer, config, connections = connected
    workspace = workspace_of(customer, superuser)
    others = stranger.import_api_key("sk_live_of-somebody-else-0123456789")["id"]
    assert customer.post("/workspace:freeze", {"dry_run": True}).json() == {"was_frozen": False}
    assert customer.token(connections[0]).status_code == 200
    assert customer.post("/workspace:freeze", {}).json() == {"was_frozen": False}
    for answer in (
        customer.token(connections[0]),
        customer.post(f"/connections/{connections[0]}/refresh"),
        customer.post("/connect-sessions", {"end_user_id": "x", "provider_config_ids": [config]}),
        customer.http.get(f"/v1/proxy/{connections[0]}/me"),
        customer.post("/connections", {"kind": "api_key", "end_user_id": "x", "provider": "p", "api_key": "k" * 20}),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (403, "WORKSPACE_FROZEN")
    assert stranger.token(others).status_code == 200
    # What shows names, or takes access away, goes on.
    assert len(customer.get("/connections").json()["connections"]) == 3
    assert customer.delete(f"/connections/{connections[2]}").status_code == 200
    assert customer.post("/workspace:freeze", {}).json() == {"was_frozen": True}
    assert len(wait_for(lambda: events(customer, "WORKSPACE_FROZEN"), 20)) == 1
    # Its tokens are kept alive meanwhile.
    rotated = admin("contain", "rotate", "--workspace", workspace)
    assert "2 tokens are rotated, 0 could not be." in rotated.stdout, rotated.stderr
    assert admin("contain", "unfreeze", workspace).returncode == 0
    time.sleep(2.5)  # a verdict is believed for seconds
    assert customer.token(connections[0]).status_code == 200


@pytest.mark.promise("P27")
@pytest.mark.case(14)
def test_a_superuser_cannot_unfreeze(
    new_customer: Callable[..., Customer], admin: Admin, superuser: Callable[[str, str], Any]
) -> None:
    customer = new_customer()
    connection = customer.import_api_key("sk_live_in-a-frozen-workspace-0123")["id"]
    workspace = workspace_of(customer, superuser)
    with superuser("core", "authority") as authority:
        before = authority.execute("select epoch, mac from workspaces where workspace_id = %s", (workspace,)).fetchone()
        customer.post("/workspace:freeze", {})
        authority.execute("update workspaces set is_frozen = false where workspace_id = %s", (workspace,))
        time.sleep(2.5)
        assert customer.token(connection).status_code == 401, "a row that we did not write gives nothing"
        authority.execute("update workspaces set epoch = %s, mac = %s where workspace_id = %s", (*before, workspace))
        time.sleep(2.5)
        assert customer.token(connection).status_code == 401, "nor does yesterday's"
    assert "It was not frozen" in admin("contain", "unfreeze", workspace).stdout
    assert customer.token(connection).status_code == 401


@pytest.mark.promise("P27")
def test_the_owners_of_a_workspace_are_told_by_mail_whoever_takes_its_access_away(
    new_customer: Callable[..., Customer],
    new_member: Callable[..., Member],
    admin: Admin,
    letters: Any,
    wait_for: Callable[..., Any],
) -> None:
    customer = new_customer()
    owner, admin_of_theirs = new_member(customer, "owner"), new_member(customer, "admin")
    listed = owner.http.get("/v1/members").json()["members"]
    (mine,) = (each["email"] for each in listed if each["role"] == "owner")
    (other,) = (each["email"] for each in listed if each["role"] == "admin")
    assert admin("contain", "rotate", "--workspace", customer.workspace).returncode == 0
    assert admin("contain", "revoke-keys", customer.workspace).returncode == 0
    admin_of_theirs.http.post("/v1/workspace:freeze", json={}).raise_for_status()
    told = wait_for(lambda: letters.to(mine) if len(letters.to(mine)) == 3 else None, 40)
    assert told, letters.to(mine)
    for part in ("every token replaced", "no API key any more that works", "is frozen"):
        assert sum(part in letter for letter in told) == 1
    assert all(customer.workspace in letter for letter in told)
    assert letters.to(other) == [], "who is no owner is not told"
    seen = owner.http.get("/v1/incidents").json()["incidents"]
    assert {each["detector"] for each in seen} == {"ROTATION_BEGUN", "API_KEYS_REVOKED", "WORKSPACE_FROZEN"}


@pytest.mark.promise("P27")
def test_all_api_keys_of_a_workspace_are_revoked_in_one_act(
    new_customer: Callable[..., Customer], stack: Stack, admin: Admin, superuser: Any, stranger: Customer
) -> None:
    customer = new_customer()
    customer.import_api_key("sk_live_some-key-of-somebody-0123456789")
    workspace = workspace_of(customer, superuser)
    assert (
        "1 API keys would be revoked. Nothing was done."
        in admin("contain", "revoke-keys", workspace, "--dry-run").stdout
    )
    assert customer.post("/api-keys:revoke-all", {"dry_run": True}).json() == {"revoked_count": 1}
    assert customer.get("/connections").status_code == 200
    assert customer.post("/api-keys:revoke-all", {}).json() == {"revoked_count": 1}
    assert customer.get("/connections").json()["reason"] == "API_KEY_INVALID"
    assert stranger.get("/connections").status_code == 200
    assert "0 API keys are revoked." in admin("contain", "revoke-keys", workspace).stdout


def test_a_key_without_the_scope_contains_nothing(new_customer: Callable[..., Customer]) -> None:
    reader = new_customer("connections:read")
    for path, body in (("/rotations", {}), ("/api-keys:revoke-all", {}), ("/workspace:freeze", {})):
        answer = reader.post(path, body)
        assert (answer.status_code, answer.json()["reason"]) == (403, "SCOPE_MISSING")
    assert reader.get("/incidents").json()["reason"] == "SCOPE_MISSING"


@pytest.mark.case(16)
@pytest.mark.promise("P05")
def test_grpc_does_the_same_and_another_workspaces_ids_are_as_ids_that_do_not_exist(
    connected: tuple[Customer, str, list[str]], stranger: Customer, stack: Stack, wait_for: Any
) -> None:
    customer, config, connections = connected
    key = customer.http.headers["authorization"]
    ca = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    with grpc.secure_channel(stack.layout.grpc_address, ca) as channel:
        stub = gateway_pb2_grpc.ContainmentStub(channel)
        metadata = (("authorization", key),)
        decoy = customer.import_api_key("sk_live_opens-nothing-at-all-0123456789")["id"]
        stub.PlaceDecoy(gateway_pb2.PlaceDecoyRequest(connection_id=decoy), metadata=metadata)
        customer.token(decoy)
        found = wait_for(
            lambda: stub.ListIncidents(gateway_pb2.ListIncidentsRequest(open_only=True), metadata=metadata).incidents,
            30,
        )
        assert [each.detector for each in found] == ["HONEYTOKEN_USED"]
        incident = stub.GetIncident(gateway_pb2.GetIncidentRequest(incident_id=found[0].incident_id), metadata=metadata)
        assert incident.evidence
        before = tokens(customer, connections)
        begun = stub.RotateTokens(gateway_pb2.RotateTokensRequest(), metadata=metadata)
        assert begun.total_count == 3
        wanted = gateway_pb2.GetRotationRequest(rotation_id=begun.rotation_id)
        assert wait_for(lambda: stub.GetRotation(wanted, metadata=metadata).rotated_count == 3, 60)
        assert all(tokens(customer, connections)[each] != before[each] for each in connections)
        nobodys_but_ours(
            stub,
            (("authorization", stranger.http.headers["authorization"]),),
            ("PlaceDecoy", gateway_pb2.PlaceDecoyRequest, "connection_id", decoy),
            ("GetIncident", gateway_pb2.GetIncidentRequest, "incident_id", incident.incident_id),
            ("RotateTokens", gateway_pb2.RotateTokensRequest, "connection_id", connections[0]),
            ("RotateTokens", gateway_pb2.RotateTokensRequest, "provider_config_id", config),
            ("GetRotation", gateway_pb2.GetRotationRequest, "rotation_id", begun.rotation_id),
        )
        frozen = stub.FreezeWorkspace(gateway_pb2.FreezeWorkspaceRequest(), metadata=metadata)
        assert not frozen.was_frozen
        assert customer.token(connections[0]).json()["reason"] == "WORKSPACE_FROZEN"
        assert stub.RevokeApiKeys(gateway_pb2.RevokeApiKeysRequest(), metadata=metadata).revoked_count == 1
        assert customer.token(connections[0]).json()["reason"] == "API_KEY_INVALID"


def nobodys_but_ours(stub: Any, strangers: Any, *calls: tuple[str, Any, str, str]) -> None:
    """Asks, as a stranger, for what is ours, for what does not exist, and for nonsense."""
    methods = gateway_pb2.DESCRIPTOR.services_by_name["Containment"].methods
    with_id = {
        (method.name, field.name) for method in methods for field in method.input_type.fields if "_id" in field.name
    }
    assert with_id == {(name, field) for name, _, field, _ in calls}, "an operation on an id is not tried here"
    for name, request, field, ours in calls:
        seen = []
        for value in (ours, ours.partition("_")[0] + "_" + "0" * 24, "nonsense"):
            with pytest.raises(grpc.RpcError) as caught:
                getattr(stub, name)(request(**{field: value}), metadata=strangers, timeout=20)
            seen.append((caught.value.code(), caught.value.details()))
        assert seen[0] == seen[1] == seen[2], name
        assert seen[0][0] == grpc.StatusCode.NOT_FOUND, name
