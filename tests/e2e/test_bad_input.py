"""What bad input gets: a clear error with a stable reason, and nothing lost or half done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

PROVABLE = {"method": "GET", "url": "https://a.example/"}
SIGNED = {"headers": {"x-signature": "00"}, "body_base64": "", "scheme": {"signature_header": "x-signature"}}


def reason(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["status"] == answer.status_code
    return answer.status_code, document["reason"]


@pytest.mark.parametrize("key", ["", "nonsense", "ap_test_" + "A" * 49, "ap_live_", "é"])
def test_an_api_key_that_is_missing_malformed_or_unknown_is_refused(key: str, customer: Customer) -> None:
    headers = {"authorization": f"Bearer {key}".encode()} if key else {"authorization": b""}
    answer = customer.http.get("/v1/connections", headers=headers)
    assert answer.status_code == 401


def test_a_key_without_the_scope_is_told_so(new_customer: Callable[..., Customer]) -> None:
    reader = new_customer("connections:read")
    assert reason(reader.post("/connect-sessions", {"end_user_id": "x"})) == (403, "SCOPE_MISSING")
    assert reader.get("/connections").status_code == 200


@pytest.mark.case(16)
@pytest.mark.promise("P05")
def test_another_workspaces_ids_look_like_ids_that_do_not_exist(
    customer: Customer, stranger: Customer, config: str
) -> None:
    connection = customer.import_api_key("sk_live_this-is-an-api-key-of-the-test")["id"]
    nowhere, no_config = "con_" + "0" * 24, "pc_" + "0" * 24
    for mine, none in ((connection, nowhere), (config, no_config)):
        kind = "connections" if mine.startswith("con") else "provider-configs"
        paths = [("GET", f"/v1/{kind}/{{}}"), ("DELETE", f"/v1/{kind}/{{}}")]
        if kind == "connections":
            paths += [("GET", "/v1/connections/{}/token"), ("GET", "/v1/device-flows/{}")]
            paths += [("POST", f"/v1/connections/{{}}/{verb}") for verb in ("refresh", "reconnect", "health-checks")]
            paths += [
                ("POST", "/v1/connections/{}/webhook-signatures:verify"),
                ("POST", "/v1/connections/{}/dpop-proofs"),
            ]
        else:
            paths += [("PATCH", "/v1/provider-configs/{}"), ("POST", "/v1/provider-configs/{}/client-secrets")]
            paths += [("POST", "/v1/provider-configs/{}/client-secrets:retire")]
        bodies = {
            "client-secrets": {"client_secret": "theirs"},
            "webhook-signatures:verify": SIGNED,
            "dpop-proofs": PROVABLE,
        }
        for method, path in paths:
            body = {} if method == "PATCH" else bodies.get(path.rpartition("/")[2])
            theirs = stranger.http.request(method, path.format(mine), json=body)
            missing = stranger.http.request(method, path.format(none), json=body)
            assert theirs.status_code == missing.status_code == 404, (method, path)
            alike = [{**each.json(), "request_id": ""} for each in (theirs, missing)]
            assert alike[0] == alike[1]
    assert customer.token(connection).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "api_key"}, "end_user_id"),
        ({"kind": "nothing", "end_user_id": "x"}, "kind"),
        ({"kind": "api_key", "end_user_id": "x", "provider": "p", "api_key": "line\r\nbreak"}, "api_key"),
        ({"kind": "api_key", "end_user_id": "x", "provider": "", "api_key": "sk"}, "provider"),
        ({"kind": "api_key", "end_user_id": "x", "provider": "p", "api_key": "sk", "surprise": 1}, "surprise"),
    ],
)
def test_a_malformed_import_names_its_field_and_leaves_nothing(
    body: dict[str, Any], field: str, new_customer: Callable[..., Customer]
) -> None:
    customer = new_customer()
    answer = customer.post("/connections", body)
    assert reason(answer) == (400, "REQUEST_MALFORMED")
    assert answer.json()["field"] == field
    assert customer.get("/connections").json()["connections"] == []


def test_no_error_repeats_what_came_in(customer: Customer) -> None:
    marker = "an-unmistakable-marker-in-the-input"
    answers = [
        customer.post("/connections", {"kind": marker}),
        customer.get(f"/connections/{marker}"),
        customer.get(f"/{marker}"),
        customer.post("/provider-configs", {"provider": marker, "client_id": "x", "client_secret": marker}),
        customer.http.post("/v1/connections", content=f'{{"{marker}'.encode()),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert marker not in answer.text


def test_a_filter_with_control_characters_is_malformed_and_not_an_incident(customer: Customer) -> None:
    for path, name in (
        ("/connections", "end_user_id"),
        ("/connections", "page_token"),
        ("/provider-configs", "page_token"),
        ("/audit/events", "target"),
        ("/audit/events", "event"),
    ):
        answer = customer.get(path, **{name: "a\x00b"})
        assert reason(answer) == (400, "REQUEST_MALFORMED"), (path, name)
        assert answer.json()["field"] == name


def test_a_second_disconnect_changes_nothing_and_is_no_second_event(
    customer: Customer, wait_for: Callable[..., Any]
) -> None:
    connection = customer.import_api_key("sk_live_this-is-an-api-key-of-the-test")["id"]
    for _ in range(2):
        assert customer.delete(f"/connections/{connection}").json()["state"] == "disconnected"
    assert wait_for(lambda: customer.events(target=connection, event="CONNECTION_DISCONNECTED"))
    assert len(customer.events(target=connection, event="CONNECTION_DISCONNECTING")) == 1


def test_a_body_over_64_kib_is_refused(customer: Customer) -> None:
    assert reason(customer.http.post("/v1/connections", content=b"x" * 70_000)) == (413, "BODY_TOO_LARGE")

    def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 8_000

    # The server answers before it has read all of it, and ends the connection: nobody else is to be given that one.
    answer = customer.http.post("/v1/connections", content=chunks(), headers={"connection": "close"})
    assert answer.status_code == 413


@pytest.mark.case(20)
@pytest.mark.promise("P15")
@pytest.mark.parametrize(
    "uri",
    [
        "https://*.example.com/cb",
        "http://example.com/cb",
        "https://user@example.com/cb",
        "https://example.com/cb#fragment",
        "https://example.com./cb",
        "https://EXAMPLE.com/cb",
        "https://example.com/a/../cb",
        "https://example.com/%2fcb",
        "javascript:alert(1)",
        "https://example.com/cb\n",
        "//example.com/cb",
    ],
)
def test_a_redirect_uri_that_is_no_plain_https_url_is_refused_when_configured(
    uri: str, customer: Customer, stack: Stack
) -> None:
    body = {"issuer": stack.layout.playground_issuer, "client_id": "x", "client_secret": "y", "redirect_uris": [uri]}
    assert reason(customer.post("/provider-configs", body)) == (400, "REDIRECT_URI_NOT_ALLOWED")


@pytest.mark.promise("P15")
@pytest.mark.case(20)
def test_our_callback_must_be_in_the_allowlist_to_the_letter(customer: Customer, stack: Stack) -> None:
    for uri in (
        "https://elsewhere.example/cb",
        f"{stack.layout.rest_url}/oauth/callback/",
        f"{stack.layout.rest_url}/oauth/callback?x=1",
    ):
        made = customer.configure(stack.layout.playground_issuer, redirect_uris=[uri])
        with pytest.raises(KeyError, match="location"):
            customer.begin(made["id"])


def test_openapi_docs_health_and_security_txt_are_there(customer: Customer) -> None:
    document = customer.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/connections/{connection_id}/token" in document["paths"]
    for path in ("/docs", "/healthz", "/readyz"):
        assert customer.http.get(path).status_code == 200, path


@pytest.mark.promise("P34")
def test_security_txt_says_where_to_report(customer: Customer) -> None:
    text = customer.http.get("/.well-known/security.txt").text
    assert text.startswith("Contact: mailto:")
    assert "Expires: " in text


@pytest.mark.case(16)
@pytest.mark.promise("P05")
def test_another_workspaces_ids_look_like_ids_that_do_not_exist_by_grpc_too(
    customer: Customer, stranger: Customer, config: str, stack: Stack
) -> None:
    connection = customer.import_api_key("sk_live_this-is-an-api-key-of-the-test")["id"]
    scheme = gateway_pb2.WebhookScheme(signature_header="x-signature")
    signed = {"scheme": scheme, "headers": [gateway_pb2.Value(name="x-signature", value="00")]}
    calls: list[tuple[str, Any, str, str]] = [
        ("GetToken", gateway_pb2.GetTokenRequest, "connection_id", connection),
        ("GetConnection", gateway_pb2.GetConnectionRequest, "id", connection),
        ("RefreshConnection", gateway_pb2.RefreshConnectionRequest, "connection_id", connection),
        ("DisconnectConnection", gateway_pb2.DisconnectConnectionRequest, "connection_id", connection),
        ("ReconnectConnection", gateway_pb2.ReconnectConnectionRequest, "connection_id", connection),
        ("CheckConnection", gateway_pb2.CheckConnectionRequest, "connection_id", connection),
        ("GetDeviceFlow", gateway_pb2.GetDeviceFlowRequest, "connection_id", connection),
        ("ProveKey", partial(gateway_pb2.ProveKeyRequest, **PROVABLE), "connection_id", connection),
        ("VerifyWebhook", partial(gateway_pb2.VerifyWebhookRequest, **signed), "connection_id", connection),
        ("AddClientSecret", partial(gateway_pb2.AddClientSecretRequest, client_secret="theirs"), "id", config),
        ("RetireClientSecret", gateway_pb2.RetireClientSecretRequest, "id", config),
        ("GetProviderConfig", gateway_pb2.GetProviderConfigRequest, "id", config),
        ("UpdateProviderConfig", gateway_pb2.UpdateProviderConfigRequest, "id", config),
        ("DeleteProviderConfig", gateway_pb2.DeleteProviderConfigRequest, "id", config),
        (
            "CreateConnectSession",
            partial(gateway_pb2.CreateConnectSessionRequest, end_user_id="x"),
            "connection_id",
            connection,
        ),
    ]
    with_id = {
        f.name
        for f in gateway_pb2.DESCRIPTOR.services_by_name["Gateway"].methods
        if {"id", "connection_id"} & set(f.input_type.fields_by_name)
    }
    assert with_id == {name for name, *_ in calls}, "an operation on an id is not tried here"
    credentials = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    metadata = (("authorization", stranger.http.headers["authorization"]),)
    with grpc.secure_channel(stack.layout.grpc_address, credentials) as channel:
        gateway = gateway_pb2_grpc.GatewayStub(channel)
        for name, request, field, theirs in calls:
            seen = []
            for value in (theirs, theirs.partition("_")[0] + "_" + "0" * 24, "nonsense"):
                with pytest.raises(grpc.RpcError) as caught:
                    getattr(gateway, name)(request(**{field: value}), metadata=metadata, timeout=20)
                seen.append((caught.value.code(), caught.value.details()))
            assert seen[0] == seen[1] == seen[2], name
            assert seen[0][0] == grpc.StatusCode.NOT_FOUND, name
    assert customer.token(connection).status_code == 200


@pytest.mark.case(20)
def test_the_attack_sees_a_redirect_uri_that_is_compared_by_its_beginning(notices: Any) -> None:
    notices(
        test_our_callback_must_be_in_the_allowlist_to_the_letter,
        (
            "coordinator",
            "authpipe_oauth_coordinator.domain.urls",
            "if uri not in tuple(allowed):",
            "if not any(each.startswith(uri) for each in allowed):",
        ),
    )


@pytest.mark.case(16)
def test_the_attack_sees_a_connection_that_is_found_in_another_workspace(notices: Any) -> None:
    notices(
        test_another_workspaces_ids_look_like_ids_that_do_not_exist,
        (
            "coordinator",
            "authpipe_oauth_coordinator.store.connections",
            "join connections c using (workspace_id, id)",
            "join connections c using (id)",
        ),
        (
            "coordinator",
            "authpipe_oauth_coordinator.store.connections",
            "[found.get(name) for name in names]",
            "[{each.id: each for each in found.values()}.get(name[1]) for name in names]",
        ),
    )
