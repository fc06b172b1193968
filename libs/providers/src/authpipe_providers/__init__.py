"""What is known of Providers: a data file each, checked against a schema, and URLs that a value cannot lead elsewhere.

Nothing here calls anybody and nothing here is secret. coordinator pins what it finds here to a provider configuration; the
worker fills the templates of a job; both compute the set of hosts to which a credential is bound, by the same rule.
"""

from authpipe_providers.catalog import Document, load_catalog, parse, read, schema, urls
from authpipe_providers.errors import EntryError, ValueNotAllowedError
from authpipe_providers.templates import client_hosts, connection_hosts, fill, host_of, require_values
from authpipe_providers.words import (
    Answer,
    Api,
    Assertion,
    Dialect,
    Endpoints,
    Entry,
    HealthCheck,
    Placement,
    Revocation,
    Rotation,
    RotationCheck,
    Signing,
    TwoStep,
    ValueRule,
    WebhookScheme,
)

__all__ = [
    "Answer",
    "Api",
    "Assertion",
    "Dialect",
    "Document",
    "Endpoints",
    "Entry",
    "EntryError",
    "HealthCheck",
    "Placement",
    "Revocation",
    "Rotation",
    "RotationCheck",
    "Signing",
    "TwoStep",
    "ValueNotAllowedError",
    "ValueRule",
    "WebhookScheme",
    "client_hosts",
    "connection_hosts",
    "fill",
    "host_of",
    "load_catalog",
    "parse",
    "read",
    "require_values",
    "schema",
    "urls",
]
