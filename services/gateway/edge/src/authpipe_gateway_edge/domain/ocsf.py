"""Events as OCSF 1.3 has them: class API Activity (6003), for whoever collects logs of many systems in one place.

It carries no proofs; those are in the export as docs/audit-format.md has it. What has no place in the class stands in `unmapped`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_VERSION = "1.3.0"
_CATEGORY, _CLASS = 6, 6003
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_NAMES = {_CREATE: "Create", _READ: "Read", _UPDATE: "Update", _DELETE: "Delete"}
# The last words of an event's name say what was done.
_ACTIVITIES = {
    _CREATE: ("CREATED", "ADDED", "DRAFTED", "BEGUN", "WRITTEN", "PREPARED", "BOUND", "INVITED", "JOINED"),
    _READ: ("KEY_RELEASED", "KEY_REUSED", "PASSED"),
    _UPDATE: (
        "CHANGED",
        "REFRESHED",
        "ROTATED",
        "REWRAPPED",
        "MOVED",
        "RESTORED",
        "KEPT",
        "SET",
        "PROMOTED",
        "ENABLED",
    ),
    _DELETE: (
        "DELETED",
        "DESTROYED",
        "REVOKED",
        "ERASED",
        "DISCONNECTED",
        "RETIRED",
        "UNBOUND",
        "EXPIRED",
        "DISABLED",
        "REMOVED",
    ),
}
_ALARMS = {
    "AUTHORIZATION_ROW_FORGED",
    "INTEGRITY_VIOLATION",
    "RELEASE_BUDGET_EXCEEDED",
    "CLOCK_DIFFERS",
    "INCIDENT_OPENED",
}
_INFORMATIONAL, _LOW, _HIGH = 1, 2, 4
_SUCCESS, _FAILURE = 1, 2
_UNMAPPED = ("purpose", "class", "version", "records", "grant", "digest", "count", "size", "until", "provider")


def to_ocsf(record: Mapping[str, Any], trail: str, leaf: int) -> dict[str, Any]:
    """Gives a record of the log (docs/audit-format.md) as an event of OCSF.

    Args:
        record: The record, read.
        trail: Its trail.
        leaf: Its leaf's index.
    """
    event: Mapping[str, Any] = record["event"]
    name, outcome = event["name"], event["outcome"]
    activity = next((each for each, ends in _ACTIVITIES.items() if name.endswith(ends)), _OTHER)
    kind, _, actor = event["actor"].partition(":")
    shown: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": _NAMES.get(activity, name),
        "actor": {"user": {"uid": actor, "type": kind}},
        "api": {
            "operation": name,
            "request": {"uid": event.get("request", event["id"])},
            "service": {"name": record["emitter"]},
        },
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "metadata": {
            "version": _VERSION,
            "uid": event["id"],
            "sequence": record["sequence"],
            "log_name": trail,
            "tenant_uid": event.get("workspace", ""),
            "product": {"name": "Authpipe", "vendor_name": "Authpipe"},
        },
        "severity_id": _HIGH if name in _ALARMS else _INFORMATIONAL if outcome == "SUCCEEDED" else _LOW,
        "src_endpoint": {"ip": event["source"]} if "source" in event else {"svc_name": record["emitter"]},
        "status_id": _SUCCESS if outcome == "SUCCEEDED" else _FAILURE,
        "status": outcome,
        "time": int(datetime.fromisoformat(event["time"]).timestamp() * 1000),
        "type_uid": _CLASS * 100 + activity,
        "unmapped": {"leaf_index": leaf, **{each: event[each] for each in _UNMAPPED if each in event}},
    }
    if "target" in event:
        shown["resources"] = [{"uid": event["target"]}]
    if "reason" in event:
        shown["status_detail"] = event["reason"]
    if "trace" in event:
        shown["metadata"]["correlation_uid"] = event["trace"]
    return shown


def lines_to_ocsf(lines: bytes, trail: str) -> bytes:
    """Gives lines of an export as lines of OCSF: the workspace's events, and nothing of the proofs."""
    shown = []
    for line in lines.splitlines():
        read = json.loads(line)
        if "record" in read and "position" in read:
            shown.append(
                json.dumps(to_ocsf(read["record"], trail, read["leaf"]), separators=(",", ":")).encode() + b"\n"
            )
    return b"".join(shown)
