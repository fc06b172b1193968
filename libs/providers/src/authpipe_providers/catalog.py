"""The catalog: one data file for each Provider, checked against `schema.json`, then for sense."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

import jsonschema

from authpipe_providers.errors import EntryError, ValueNotAllowedError
from authpipe_providers.templates import placeholders, require_pattern, require_template, require_values
from authpipe_providers.words import (
    Answer,
    Api,
    Assertion,
    Dialect,
    Endpoints,
    Entry,
    HealthCheck,
    Pairs,
    Placement,
    Revocation,
    Rotation,
    RotationCheck,
    Signing,
    TwoStep,
    ValueRule,
    WebhookScheme,
)
from authpipe_sensitive import Label

Document = Mapping[str, Any]
# How an OAuth 1.0a client shows who it is: it signs every request. Also the name of the way in which its tokens are given.
_OAUTH1 = "oauth1"
_SIGNED = {"key", "method", "host", "path", "query", "target", "body", "body_hash", "timestamp", "nonce"}


@lru_cache(1)
def schema() -> dict[str, Any]:
    """Gives the JSON Schema of an entry."""
    text = (importlib.resources.files(__name__.rpartition(".")[0]) / "schema.json").read_text()
    return cast("dict[str, Any]", json.loads(text))


@lru_cache(1)
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def load_catalog() -> dict[str, Entry]:
    """Reads the catalog, by name.

    Raises:
        EntryError: A file is not as it should be; the process does not start.
    """
    folder = importlib.resources.files(__name__.rpartition(".")[0]) / "entries"
    entries = (parse(json.loads(file.read_text())) for file in folder.iterdir() if file.name.endswith(".json"))
    return {entry.name: entry for entry in sorted(entries, key=lambda each: each.name)}


def parse(document: Document) -> Entry:
    """Reads an entry.

    Raises:
        EntryError: It does not fit the schema, or makes no sense; the metadata says where.
    """
    wrong = next(iter(sorted(_validator().iter_errors(document), key=lambda each: list(each.absolute_path))), None)
    if wrong is not None:
        raise EntryError(field=_where(wrong.absolute_path), cause=Label("SCHEMA"))
    entry = read(document)
    _require_sense(entry)
    return entry


def read(document: Document) -> Entry:
    """Reads an entry that was checked when it was stored."""
    oauth2 = document.get("oauth2")
    two_step = document.get("two_step")
    oauth1 = document.get("oauth1")
    grants = [*(oauth2.get("grants", ["authorization_code"]) if oauth2 else []), *(["two_step"] if two_step else [])]
    grants += [_OAUTH1] if oauth1 else []
    return Entry(
        name=document["name"],
        display_name=document["display_name"],
        endpoints=_known_endpoints(document),
        dialect=_known_dialect(document),
        values=tuple(_rule(name, rule) for name, rule in sorted(document.get("values", {}).items())),
        grants=tuple(grants),
        client_authentication=(_OAUTH1,) if oauth1 else tuple((oauth2 or {}).get("client_authentication", [])),
        default_scopes=tuple((oauth2 or oauth1 or {}).get("default_scopes", [])),
        rotation=Rotation((oauth2 or {}).get("rotation", "strict")),
        grace_seconds=(oauth2 or {}).get("grace_seconds", 0),
        api=_api(document["api"]) if "api" in document else None,
        api_key=_key_placement(document["api_key"]) if "api_key" in document else None,
        key_life_days=document.get("api_key", {}).get("expires_in_days", 0),
        basic="basic" in document or "signing" in document,
        health=_health(document["health_check"]) if "health_check" in document else None,
        pins=tuple(document.get("public_key_pins", [])),
        notes=tuple(document.get("notes", [])),
        documentation=tuple(document.get("documentation", [])),
        read_on=document.get("read_on", ""),
        document=document,
        rotation_check=RotationCheck(**document["rotation_check"]) if "rotation_check" in document else None,
        webhook=_webhook(document["webhook"]) if "webhook" in document else None,
        signing=_signing(document["signing"]) if "signing" in document else None,
        credentials=tuple(
            (name, each["title"]) for name, each in sorted((two_step or {}).get("credentials", {}).items())
        ),
    )


def urls(entry: Entry) -> Iterator[str]:
    """Gives every URL of an entry that a credential may be sent to."""
    known = entry.endpoints
    if known is not None:
        yield from (
            known.token_endpoint,
            known.refresh_endpoint,
            known.revocation_endpoint,
            known.pushed_endpoint,
            known.device_endpoint,
            known.introspection_endpoint,
            known.userinfo_endpoint,
            known.temporary_endpoint,
        )
    if entry.dialect.revocation is not None:
        yield entry.dialect.revocation.url
    if entry.api is not None:
        yield from entry.api.base_urls
    if entry.health is not None:
        yield entry.health.url
    if entry.rotation_check is not None:
        yield entry.rotation_check.url


def _require_sense(entry: Entry) -> None:
    for rule in entry.values:
        if rule.pattern:
            require_pattern(rule.pattern)
    try:
        require_values(entry.values, {rule.name: rule.example for rule in entry.values})
    except ValueNotAllowedError:
        raise EntryError(field=Label("values"), cause=Label("EXAMPLE_DOES_NOT_FIT")) from None
    browsers = (entry.endpoints.authorization_endpoint, entry.endpoints.issuer) if entry.endpoints else ()
    for url in (*urls(entry), *browsers):
        if url:
            require_template(url, entry.values)
    by_code = bool({"authorization_code", _OAUTH1} & set(entry.grants))
    if entry.endpoints is not None and by_code and not entry.endpoints.authorization_endpoint:
        raise EntryError(field=Label("oauth2"), cause=Label("AUTHORIZATION_ENDPOINT_MISSING"))
    placements = [each for each in (entry.api_key, entry.api.token if entry.api else None) if each is not None]
    if any(each.where != "basic" and not each.name for each in placements):
        raise EntryError(field=Label("api_key"), cause=Label("NAME_MISSING"))
    _require_filled(entry)
    if entry.endpoints is None and entry.api is None and entry.webhook is None:
        raise EntryError(field=Label("api"), cause=Label("NOWHERE_TO_GO"))


def _require_filled(entry: Entry) -> None:
    """Returns when nothing has a placeholder that nobody fills."""
    own = entry.dialect.two_step
    if own is not None:
        named = {name for _, text in (*own.headers, *own.fields) for name in placeholders(text)}
        if named != {name for name, _ in entry.credentials}:
            raise EntryError(field=Label("two_step"), cause=Label("CREDENTIALS_DIFFER"))
    if not placeholders(entry.dialect.realm) <= {rule.name for rule in entry.values}:
        raise EntryError(field=Label("oauth1"), cause=Label("PLACEHOLDER_NOT_DECLARED"))
    if entry.signing is not None:
        _require_signing(entry.signing, {rule.name for rule in entry.values})
    if entry.webhook is not None and not placeholders(entry.webhook.signed) <= {"body", "timestamp", "id"}:
        raise EntryError(field=Label("webhook"), cause=Label("PLACEHOLDER_NOT_DECLARED"))


def _require_signing(signing: Signing, values: set[str]) -> None:
    if signing.scheme == "sigv4":
        if not placeholders(signing.region) <= values:
            raise EntryError(field=Label("signing"), cause=Label("PLACEHOLDER_NOT_DECLARED"))
        return
    carried = {name for _, text in (*signing.headers, *signing.query) for name in placeholders(text)}
    if not carried | placeholders(signing.signed) <= _SIGNED | {"signature"} or "signature" in placeholders(
        signing.signed
    ):
        raise EntryError(field=Label("signing"), cause=Label("PLACEHOLDER_NOT_DECLARED"))
    if "signature" not in carried:
        raise EntryError(field=Label("signing"), cause=Label("SIGNATURE_NOT_SENT"))


def _where(path: Any) -> Label:
    words = [str(each) for each in path if isinstance(each, str) and each.replace("_", "").isalnum()]
    return Label(".".join(words[:4]) or "document")


def _pairs(data: Mapping[str, str]) -> Pairs:
    return tuple(sorted(data.items()))


def _rule(name: str, rule: Document) -> ValueRule:
    return ValueRule(
        name,
        rule["title"],
        rule.get("description", ""),
        rule["example"],
        rule.get("pattern", ""),
        tuple(rule.get("one_of", [])),
    )


def _endpoints(data: Document) -> Endpoints:
    return Endpoints(
        data.get("issuer", ""),
        data.get("authorization_endpoint", ""),
        data["token_endpoint"],
        data.get("revocation_endpoint", ""),
        data["client_authentication"][0],
        data.get("iss_required", False),
        data.get("refresh_endpoint", ""),
        data.get("pushed_authorization_request_endpoint", ""),
        data.get("device_authorization_endpoint", ""),
        data.get("introspection_endpoint", ""),
        data.get("userinfo_endpoint", ""),
        data.get("dpop", False),
    )


def _dialect(data: Document) -> Dialect:
    return Dialect(
        scope_separator=data.get("scope_separator", " "),
        scope_parameter=data.get("scope_parameter", "scope"),
        authorization_parameters=_pairs(data.get("authorization_parameters", {})),
        token_parameters=_pairs(data.get("token_parameters", {})),
        refresh_parameters=_pairs(data.get("refresh_parameters", {})),
        json_body=data.get("body", "form") == "json",
        answer=Answer(**data.get("answer", {})),
        metadata=_pairs(data.get("metadata", {})),
        life_seconds=data.get("life_seconds", 0),
        revocation=_revocation(data["revocation"]) if "revocation" in data else None,
        resource=data.get("resource", ""),
        assertion=Assertion(**data.get("assertion", {})),
    )


def _known_endpoints(document: Document) -> Endpoints | None:
    if "oauth2" in document:
        return _endpoints(document["oauth2"])
    if "oauth1" in document:
        own = document["oauth1"]
        return Endpoints(
            "",
            own["authorization_endpoint"],
            own["token_endpoint"],
            "",
            _OAUTH1,
            iss_required=False,
            temporary_endpoint=own["temporary_credentials_endpoint"],
        )
    return _two_step_endpoint(document["two_step"]) if "two_step" in document else None


def _known_dialect(document: Document) -> Dialect:
    if "two_step" in document:
        return _two_step_dialect(document["two_step"])
    if "oauth1" in document:
        own = document["oauth1"]
        return Dialect(
            scope_separator=own.get("scope_separator", " "),
            authorization_parameters=_pairs(own.get("authorization_parameters", {})),
            metadata=_pairs(own.get("metadata", {})),
            signature_method=own["signature_method"],
            realm=own.get("realm", ""),
        )
    return _dialect(document.get("oauth2", {}))


def _two_step_endpoint(data: Document) -> Endpoints:
    return Endpoints("", "", data["url"], "", "none", iss_required=False)


def _two_step_dialect(data: Document) -> Dialect:
    asked = TwoStep(
        data.get("method", "POST"),
        data.get("body", "json") == "json",
        _pairs(data.get("headers", {})),
        _pairs(data.get("fields", {})),
    )
    return Dialect(
        answer=Answer(**{**data.get("answer", {}), "token_type_absent": True}),
        metadata=_pairs(data.get("metadata", {})),
        life_seconds=data.get("life_seconds", 0),
        two_step=asked,
    )


def _webhook(data: Document) -> WebhookScheme:
    return WebhookScheme(**{**data, "signature_header": data["signature_header"].lower()})


def _signing(data: Document) -> Signing:
    pairs = {name: _pairs(data.get(name, {})) for name in ("headers", "query")}
    return Signing(**{**data, **pairs})


def _revocation(data: Document) -> Revocation:
    tokens = {"tokens": tuple(data["tokens"])} if "tokens" in data else {}
    return Revocation(**{**data, **tokens})


def _api(data: Document) -> Api:
    token = data.get("token")
    placement = Placement(token["in"], token.get("name", ""), token.get("prefix", "")) if token else Placement()
    return Api(tuple(data["base_urls"]), _pairs(data.get("headers", {})), placement)


def _key_placement(data: Document) -> Placement:
    return Placement(data["in"], data.get("name", ""), data.get("prefix", ""))


def _health(data: Document) -> HealthCheck:
    return HealthCheck(data.get("method", "GET"), data["url"])
