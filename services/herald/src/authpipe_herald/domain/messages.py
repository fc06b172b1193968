"""What a person reads, and what a program reads, of a notice. No field of an incident is a text of a stranger's."""

from __future__ import annotations

from collections.abc import Mapping

from authpipe_herald.domain.words import Notice

# One sentence for each detector (docs/alarms.md): what was found of the subject.
FOUND: Mapping[str, str] = {
    "CONNECTION_ABOVE_BASELINE": "was used far more often than it ever is at this hour",
    "API_KEY_ABOVE_BASELINE": "used credentials far more often than it ever does at this hour",
    "WORKSPACE_ABOVE_BASELINE": "used credentials far more often than it ever does at this hour",
    "API_KEY_NEW_ADDRESS_RANGE": "was used from an address range from which it never was before",
    "API_KEY_UNUSUAL_HOUR": "was used at an hour at which it never is",
    "API_KEY_ENUMERATES": "went through many connections in ten minutes, or asked for many that are not there",
    "CONNECTION_REFRESH_STORM": "was refreshed again and again within an hour",
    "PROVIDER_REFRESH_FAILURES": "refused half of all refreshes within an hour",
    "WORKSPACE_NEAR_RELEASE_BOUND": "is near the bound at which keys are no longer released to it",
    "DISCONNECTED_CONNECTION_USED": "is disconnected, and somebody uses it",
    "HONEYTOKEN_USED": "is a decoy that nobody should ever touch, and somebody did",
    "AUTHORIZATION_ROW_FORGED": "was given access by a row in the database that we did not write",
    "INTEGRITY_VIOLATION": "has a stored record that does not open where it stands: it was changed or moved",
    "RELEASE_BUDGET_EXCEEDED": "was asked for more keys than are released in a minute",
    "CLOCK_DIFFERS": "is signed by a process whose clock is wrong",
    "ROTATION_BEGUN": "is having every token replaced",
    "API_KEYS_REVOKED": "has no API key any more that works: all were revoked",
    "WORKSPACE_FROZEN": "is frozen: nothing of it is served or changed, and nothing is lost",
}
_KINDS = {
    "OPENED": "Incident",
    "DUE_IN_12_HOURS": "12 hours left to tell the customer",
    "DUE_IN_4_HOURS": "4 hours left to tell the customer",
    "DUE_IN_1_HOUR": "1 hour left to tell the customer",
    "OVERDUE": "The time to tell the customer is over",
}


def subject_line(notice: Notice) -> str:
    """Gives the subject of an e-mail."""
    what = _KINDS.get(notice.kind, f"Incident {notice.state.lower().replace('_', ' ')}")
    return f"[Authpipe] {notice.severity}: {what}: {notice.detector.lower().replace('_', ' ')}"


def text(notice: Notice) -> str:
    """Gives the text of an e-mail."""
    where = f"Workspace {notice.workspace}: " if notice.workspace else ""
    deadline = f"Tell the customer by {notice.notify_by:%Y-%m-%d %H:%M} UTC.\n" if notice.notify_by else ""
    return (
        f"{where}{notice.subject} {FOUND.get(notice.detector, 'was found alarming')}.\n\n"
        f"Severity: {notice.severity}\nState: {notice.state}\nFound: {notice.opened_at:%Y-%m-%d %H:%M:%S} UTC\n{deadline}\n"
        f"See the evidence, with its proofs:\n  authpipe-admin incidents show {notice.incident}\n"
        f"What it means and what to do: docs/alarms.md\n"
    )


def text_for_owners(notice: Notice, workspace: str, dashboard_url: str) -> str:
    """Gives the text of an e-mail to a workspace's owner."""
    return (
        f"In your workspace {workspace} ({notice.workspace}):\n"
        f"{notice.subject} {FOUND.get(notice.detector, 'was found alarming')}.\n\n"
        f"Severity: {notice.severity}\nFound: {notice.opened_at:%Y-%m-%d %H:%M:%S} UTC\nIncident: {notice.incident}\n\n"
        f"See it, and who did what, in the log:\n  {dashboard_url}/dashboard#incidents\n"
        "You get this because you are an owner of the workspace. No credential stands in it, and no link in it signs you in.\n"
    )


def members(notice: Notice) -> dict[str, str | int | None]:
    """Gives the members of a webhook's body."""
    return {
        "type": f"incident.{notice.kind.lower()}",
        "incident_id": notice.incident,
        "change": notice.number,
        "detector": notice.detector,
        "severity": notice.severity,
        "state": notice.state,
        "workspace_id": notice.workspace,
        "subject": notice.subject,
        "summary": f"{notice.subject} {FOUND.get(notice.detector, 'was found alarming')}.",
        "opened_at": notice.opened_at.isoformat(),
        "notify_by": notice.notify_by.isoformat() if notice.notify_by else None,
    }
