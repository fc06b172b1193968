"""URLs with placeholders, and the hosts that they may lead to (case 22).

A placeholder stands in a host only before two fixed labels, `https://{shop}.example.com`, and is filled with one label; or
its values are a closed list, and each of them is known beforehand. So no value leads anywhere else.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from authpipe_providers.errors import EntryError, ValueNotAllowedError
from authpipe_providers.words import ValueRule
from authpipe_sensitive import Label

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]{0,30})\}")
_LONGEST_VALUE = 100
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]{1,100}")
# Characters, classes of them and simple repetitions: nothing on which matching could take long.
_UNIT = re.compile(r"(\[[A-Za-z0-9_.~-]+\]|\\\.|[A-Za-z0-9_~-])(\{\d{1,2}(,\d{1,3})?\}|[*+?])?")
_MOST_VARIABLE = 3
_FIXED_LABELS = 2
# Our client id, which some Providers want in the path of a revocation.
CLIENT_ID = "client_id"


def placeholders(template: str) -> set[str]:
    """Gives the names of a template's placeholders."""
    return set(_PLACEHOLDER.findall(template))


def host_of(url: str) -> str:
    """Gives the host of a URL or template, lower case, without a port."""
    return urlsplit(url).hostname or ""


def require_pattern(pattern: str) -> None:
    """Returns when a pattern is a simple one.

    Raises:
        EntryError: It has groups, alternatives, classes of another kind, or too many repetitions.
    """
    at, variable = 0, 0
    while at < len(pattern):
        unit = _UNIT.match(pattern, at)
        if unit is None:
            raise EntryError(field=Label("values"), cause=Label("PATTERN_NOT_SIMPLE"))
        variable += (unit.group(2) is not None and "," in unit.group(2)) or unit.group(2) in {"*", "+", "?"}
        at = unit.end()
    if variable > _MOST_VARIABLE:
        raise EntryError(field=Label("values"), cause=Label("PATTERN_NOT_SIMPLE"))
    try:
        re.compile(pattern)
    except re.error:
        raise EntryError(field=Label("values"), cause=Label("PATTERN_NOT_SIMPLE")) from None


def require_template(url: str, rules: Sequence[ValueRule]) -> None:
    """Returns when no value that its rules allow can lead a template elsewhere than it shows.

    Raises:
        EntryError: It can, or a placeholder is not declared, or it is no https URL.
    """
    by_name = {rule.name: rule for rule in rules}
    bare = _PLACEHOLDER.sub("x", url)
    path = placeholders(url.partition("://")[2].partition("/")[2]) & {CLIENT_ID}
    if not placeholders(url) - path <= set(by_name) or "{" in bare or "}" in bare:
        raise EntryError(cause=Label("PLACEHOLDER_NOT_DECLARED"))
    try:
        parts = urlsplit(bare)
        _ = parts.port
    except ValueError:
        raise EntryError(cause=Label("URL_NOT_ALLOWED")) from None
    if parts.scheme != "https" or "@" in parts.netloc or _NAME.fullmatch(parts.hostname or "") is None:
        raise EntryError(cause=Label("URL_NOT_ALLOWED"))
    host = urlsplit(url).netloc.partition(":")[0]
    for name in placeholders(urlsplit(url).netloc):
        if by_name[name].one_of:
            continue
        if not all(_LABEL.fullmatch(label) for label in host.split(".")[-_FIXED_LABELS:]):
            raise EntryError(cause=Label("PLACEHOLDER_IN_DOMAIN"))


def require_values(rules: Sequence[ValueRule], given: Mapping[str, str]) -> dict[str, str]:
    """Gives the values of a connection, each of the form that its rule asks for.

    Raises:
        ValueNotAllowedError: One is missing, or of another form, or nobody asked for it.
    """
    if set(given) - {rule.name for rule in rules}:
        raise ValueNotAllowedError(field=Label("values"))
    for rule in rules:
        value = given.get(rule.name, "")
        fits = value in rule.one_of if rule.one_of else re.fullmatch(rule.pattern, value) is not None
        if not 1 <= len(value) <= _LONGEST_VALUE or not fits:
            raise ValueNotAllowedError(field=Label("values"))
    return {rule.name: given[rule.name] for rule in rules}


def fill(template: str, values: Mapping[str, str], rules: Sequence[ValueRule]) -> str:
    """Gives the URL of a connection.

    Raises:
        ValueNotAllowedError: A value is missing, or would lead elsewhere than the template shows.
    """
    if "{" not in template:
        return template
    closed = {rule.name: rule.one_of for rule in rules if rule.one_of}
    scheme, _, rest = template.partition("://")
    host, slash, path = rest.partition("/")

    def put(match: re.Match[str], form: re.Pattern[str]) -> str:
        name = match.group(1)
        value = values.get(name, "")
        plain = form.fullmatch(value) is not None and value not in {".", ".."}
        if not (value in closed[name] if name in closed else plain):
            raise ValueNotAllowedError(field=Label("values"))
        return value

    filled = _PLACEHOLDER.sub(lambda match: put(match, _LABEL), host)
    return f"{scheme}://{filled}{slash}" + _PLACEHOLDER.sub(lambda match: put(match, _SEGMENT), path)


def connection_hosts(urls: Iterable[str], values: Mapping[str, str], rules: Sequence[ValueRule]) -> set[str]:
    """Gives the hosts that the credentials of one connection may be sent to.

    Raises:
        ValueNotAllowedError: A value would lead elsewhere than its template shows.
    """
    return {host_of(fill("/".join(url.split("/", 3)[:3]), values, rules)) for url in urls if url}


def client_hosts(urls: Iterable[str], rules: Sequence[ValueRule]) -> set[str]:
    """Gives the hosts that our client secret may be sent to, whichever connection it is for.

    A placeholder of a closed list counts with each of its values; one of a pattern stays as it is written.
    """
    closed = {rule.name: rule.one_of for rule in rules if rule.one_of}
    hosts = set()
    for url in urls:
        if not url:
            continue
        host = host_of(url)
        names = sorted(placeholders(host) & set(closed))
        for chosen in itertools.product(*(closed[name] for name in names)):
            filled = host
            for name, value in zip(names, chosen, strict=True):
                filled = filled.replace(f"{{{name}}}", value)
            hosts.add(filled)
    return hosts
