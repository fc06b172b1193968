"""The catalog of Providers: one data file each, checked against `schema.json` when the process starts."""

from __future__ import annotations

import importlib.resources
import json

import jsonschema

from authpipe_oauth_coordinator.domain.provider_configs import CatalogEntry
from authpipe_oauth_coordinator.domain.words import Endpoints, Rotation


def load_catalog() -> dict[str, CatalogEntry]:
    """Reads the catalog.

    Raises:
        jsonschema.ValidationError: A file does not fit the schema; the process does not start.
    """
    folder = importlib.resources.files(__name__)
    schema = json.loads((folder / "schema.json").read_text())
    entries = {}
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if not file.name.endswith(".json") or file.name == "schema.json":
            continue
        data = json.loads(file.read_text())
        jsonschema.validate(data, schema)
        endpoints = Endpoints(
            data.get("issuer", ""),
            data["authorization_endpoint"],
            data["token_endpoint"],
            data.get("revocation_endpoint", ""),
            data["token_endpoint_auth_method"],
            data.get("iss_required", False),
        )
        entries[data["name"]] = CatalogEntry(
            data["name"],
            data["display_name"],
            endpoints,
            tuple(data.get("default_scopes", [])),
            Rotation(data.get("rotation", "strict")),
            data.get("grace_seconds", 0),
        )
    return entries
