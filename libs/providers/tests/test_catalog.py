"""The catalog: every file fits the schema and makes sense, and what does not is refused with where it goes wrong."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import authpipe_providers
import pytest
from authpipe_providers import EntryError, parse

FOLDER = Path(authpipe_providers.__file__).parent / "entries"
GOOD: dict[str, Any] = {
    "name": "example",
    "display_name": "Example",
    "documentation": ["https://example.com/docs"],
    "read_on": "2026-11-24",
    "values": {"shop": {"title": "Shop", "example": "acme", "pattern": "[a-z]{1,20}"}},
    "oauth2": {
        "authorization_endpoint": "https://{shop}.example.com/authorize",
        "token_endpoint": "https://{shop}.example.com/token",
        "client_authentication": ["client_secret_basic"],
    },
}


@pytest.mark.promise("P37")
@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_a_file_bears_the_name_of_its_provider_and_says_where_it_was_read(file: Path) -> None:
    entry = parse(json.loads(file.read_text()))
    assert entry.name == file.stem
    assert entry.documentation
    assert entry.read_on >= "2026-11-24"


@pytest.mark.promise("P30")
@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_nobody_asks_for_a_scope_that_writes_because_a_file_says_so(file: Path) -> None:
    scopes = parse(json.loads(file.read_text())).default_scopes
    assert not [each for each in scopes if re.search(r"admin|write|delete|manage|modify|full|\*", each, re.IGNORECASE)]
    assert len(scopes) <= 3


def test_there_are_sixty_providers_and_no_two_alike() -> None:
    names = [file.stem for file in FOLDER.glob("*.json")]
    assert len(names) >= 60
    assert len({parse(json.loads((FOLDER / f"{name}.json").read_text())).display_name for name in names}) == len(names)


def test_a_good_entry_is_read() -> None:
    entry = parse(GOOD)
    assert entry.endpoints is not None
    assert entry.endpoints.auth_method == "client_secret_basic"
    assert [rule.name for rule in entry.values] == ["shop"]


@pytest.mark.promise("P37")
@pytest.mark.parametrize(
    ("change", "field", "cause"),
    [
        ({"name": "Example"}, "name", "SCHEMA"),
        ({"surprise": 1}, "document", "SCHEMA"),
        ({"read_on": "yesterday"}, "read_on", "SCHEMA"),
        ({"oauth2": {**GOOD["oauth2"], "token_endpoint": "http://example.com"}}, "oauth2.token_endpoint", "SCHEMA"),
        (
            {"oauth2": {**GOOD["oauth2"], "authorization_parameters": {"state": "mine"}}},
            "oauth2.authorization_parameters",
            "SCHEMA",
        ),
        (
            {"oauth2": {**GOOD["oauth2"], "authorization_parameters": {"code_challenge_method": "plain"}}},
            "oauth2.authorization_parameters",
            "SCHEMA",
        ),
        ({"oauth2": {**GOOD["oauth2"], "rotation": "grace"}}, "oauth2", "SCHEMA"),
        ({"oauth2": {**GOOD["oauth2"], "grace_seconds": 5}}, "oauth2", "SCHEMA"),
        ({"oauth2": {**GOOD["oauth2"], "metadata": {"x": "not a pointer"}}}, "oauth2.metadata.x", "SCHEMA"),
        (
            {"oauth2": {**GOOD["oauth2"], "token_endpoint": "https://{who}.example.com"}},
            None,
            "PLACEHOLDER_NOT_DECLARED",
        ),
        ({"oauth2": {**GOOD["oauth2"], "token_endpoint": "https://{shop}.com"}}, None, "PLACEHOLDER_IN_DOMAIN"),
        ({"values": {"shop": {"title": "S", "example": "A", "pattern": "[a-z]"}}}, "values", "EXAMPLE_DOES_NOT_FIT"),
        ({"values": {"shop": {"title": "S", "example": "a", "pattern": "(a|b)"}}}, "values", "PATTERN_NOT_SIMPLE"),
        (
            {"oauth2": {k: v for k, v in GOOD["oauth2"].items() if k != "authorization_endpoint"}},
            "oauth2",
            "AUTHORIZATION_ENDPOINT_MISSING",
        ),
    ],
)
def test_what_is_no_entry_is_refused_and_says_where(change: dict[str, Any], field: str | None, cause: str) -> None:
    document = copy.deepcopy(GOOD) | change
    with pytest.raises(EntryError) as refused:
        parse(document)
    assert refused.value.metadata["cause"] == cause
    if field is not None:
        assert refused.value.metadata["field"] == field


def test_pkce_and_state_cannot_be_turned_off_by_an_entry() -> None:
    for name in (
        "code_challenge",
        "code_challenge_method",
        "state",
        "redirect_uri",
        "client_id",
        "response_type",
        "scope",
    ):
        document = copy.deepcopy(GOOD)
        document["oauth2"]["authorization_parameters"] = {name: "x"}
        with pytest.raises(EntryError):
            parse(document)
