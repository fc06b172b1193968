"""URLs with placeholders: whatever a value is, it leads to no host that the template does not show (case 22)."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from authpipe_providers import EntryError, ValueNotAllowedError, ValueRule, client_hosts, connection_hosts, fill
from authpipe_providers.templates import require_pattern, require_template, require_values
from hypothesis import given
from hypothesis import strategies as st

SHOP = (ValueRule("shop", pattern="[a-z0-9][a-z0-9-]{0,59}"),)
REGION = (ValueRule("region", one_of=("com", "eu", "com.au")),)


@pytest.mark.promise("P37")
@pytest.mark.case(22)
@given(st.text(max_size=120))
def test_a_value_in_a_host_never_leads_to_another_host(value: str) -> None:
    try:
        url = fill("https://{shop}.example.com/token", {"shop": value}, (ValueRule("shop", pattern=".*"),))
    except ValueNotAllowedError:
        return
    parts = urlsplit(url)
    assert parts.hostname == f"{value}.example.com"
    assert parts.netloc == parts.hostname, "no user, no port"
    assert (parts.path, parts.query, parts.fragment) == ("/token", "", "")
    assert "." not in value


@pytest.mark.promise("P37")
@pytest.mark.case(22)
@given(st.text(max_size=120))
def test_a_value_in_a_path_stays_one_segment(value: str) -> None:
    try:
        url = fill("https://example.com/t/{tenant}/token", {"tenant": value}, (ValueRule("tenant", pattern=".*"),))
    except ValueNotAllowedError:
        return
    parts = urlsplit(url)
    assert parts.netloc == "example.com"
    assert parts.path.split("/") == ["", "t", value, "token"]
    assert (parts.query, parts.fragment) == ("", "")
    assert value not in {".", ".."}


@pytest.mark.case(22)
@pytest.mark.parametrize(
    "value",
    [
        "evil.com#",
        "evil.com/",
        "a.evil.com",
        "x@evil.com",
        "evil.com?",
        "-a",
        "A",
        "",
        "a" * 64,
        "%2e",
        "ü",
        "a\n",
        "a b",
    ],
)
def test_the_classic_ways_out_of_a_host_are_refused(value: str) -> None:
    with pytest.raises(ValueNotAllowedError):
        fill("https://{shop}.example.com/token", {"shop": value}, SHOP)


def test_values_of_a_closed_list_may_be_more_than_a_label_and_nothing_else() -> None:
    assert (
        fill("https://accounts.example.{region}/t", {"region": "com.au"}, REGION) == "https://accounts.example.com.au/t"
    )
    with pytest.raises(ValueNotAllowedError):
        fill("https://accounts.example.{region}/t", {"region": "evil.com"}, REGION)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("https://{shop}.com/t", "PLACEHOLDER_IN_DOMAIN"),
        ("https://{shop}/t", "PLACEHOLDER_IN_DOMAIN"),
        ("https://api.{shop}.com/t", "PLACEHOLDER_IN_DOMAIN"),
        ("https://example.com:{shop}/t", "URL_NOT_ALLOWED"),
        ("https://{other}.example.com/t", "PLACEHOLDER_NOT_DECLARED"),
        ("https://{shop.example.com/t", "PLACEHOLDER_NOT_DECLARED"),
        ("http://{shop}.example.com/t", "URL_NOT_ALLOWED"),
        ("https://user@{shop}.example.com/t", "URL_NOT_ALLOWED"),
        ("https://{shop}.EXAMPLE.com:x/t", "URL_NOT_ALLOWED"),
    ],
)
def test_a_template_that_a_value_could_lead_elsewhere_is_no_template(url: str, cause: str) -> None:
    with pytest.raises(EntryError) as refused:
        require_template(url, SHOP)
    assert refused.value.metadata["cause"] == cause


@pytest.mark.parametrize("pattern", ["(a+)+", "a|b", "[^a]", "\\w+", "a+b+c+d+", ".*", "[", "a{1,2}{3}", "(?:a)", "a$"])
def test_a_pattern_on_which_matching_could_take_long_or_that_hides_something_is_refused(pattern: str) -> None:
    with pytest.raises(EntryError):
        require_pattern(pattern)


def test_simple_patterns_are_taken() -> None:
    for pattern in ("[a-z0-9-]{1,40}", "[A-Z]{2}", "us[0-9]{1,2}", "[a-z]+\\.my"):
        require_pattern(pattern)


@pytest.mark.parametrize(
    "given_values", [{}, {"shop": ""}, {"shop": "UPPER"}, {"shop": "a", "more": "b"}, {"shop": "a" * 101}]
)
def test_a_connection_has_the_values_that_are_asked_for_and_no_others(given_values: dict[str, str]) -> None:
    with pytest.raises(ValueNotAllowedError):
        require_values(SHOP, given_values)


@pytest.mark.case(22)
def test_credentials_are_bound_to_the_hosts_of_their_connection_and_a_client_secret_to_those_of_all() -> None:
    urls = ("https://accounts.example.{region}/t", "https://{shop}.example.com/r", "")
    rules = (*SHOP, *REGION)
    values = {"shop": "acme", "region": "eu"}
    assert connection_hosts(urls, values, rules) == {"accounts.example.eu", "acme.example.com"}
    assert client_hosts(urls, rules) == {
        "accounts.example.com",
        "accounts.example.eu",
        "accounts.example.com.au",
        "{shop}.example.com",
    }
