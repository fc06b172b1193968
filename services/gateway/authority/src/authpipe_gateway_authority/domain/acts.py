"""What a customer may ask to do: the scope it needs, and the grants that it yields.

A manage grant names its act, so that an edge that is taken over cannot turn a read into a disconnect.
"""

from __future__ import annotations

from dataclasses import dataclass

# The numbers of authpipe.types.v1.RecordClass that may be served: access, api_key, basic, webhook_secret, oauth1.
SERVABLE = (1, 3, 4, 5, 11)
IMPORTABLE = (1, 2, 3, 4, 5, 11)
# A webhook secret goes nowhere: it verifies what came. The key that a token is bound to (10) is used beside it.
PROXIABLE = (1, 3, 4, 10, 11)
WEBHOOK_SECRET = 5
CLIENT_SECRETS = (6, 9)


@dataclass(frozen=True, slots=True)
class ActRule:
    """One act.

    Args:
        name: Its name; the manage grant has the purpose ``manage.<name>``.
        scope: The scope that it needs.
        purpose: The purpose of its record grant; empty: it needs no key.
        key_domain: The key domain of the record grant.
        classes: The classes that the record grant may name.
        consumer: The SPIFFE path of who opens the records.
        when_frozen: Whether it may be done while the workspace is frozen: it shows names, or takes access away.
    """

    name: str
    scope: str
    purpose: str = ""
    key_domain: str = ""
    classes: tuple[int, ...] = ()
    consumer: str = "gateway/edge"
    when_frozen: bool = False


ACTS: dict[int, ActRule] = {
    1: ActRule("serve", "tokens:read", "serve", "user-credentials", SERVABLE),
    2: ActRule("refresh", "tokens:refresh"),
    3: ActRule("read_connections", "connections:read", when_frozen=True),
    4: ActRule("import_connection", "connections:write", "store", "user-credentials", IMPORTABLE),
    5: ActRule("disconnect", "connections:write", when_frozen=True),
    6: ActRule("create_connect_session", "connect_sessions:write"),
    7: ActRule("read_provider_configs", "provider_configs:read", when_frozen=True),
    8: ActRule("configure_provider", "provider_configs:write", "configure", "client-secrets", CLIENT_SECRETS),
    9: ActRule("read_audit", "audit:read", when_frozen=True),
    # Reserving an id comes before the grant that names it.
    10: ActRule("draft_connection", "connections:write"),
    11: ActRule("draft_provider_config", "provider_configs:write"),
    12: ActRule("describe_provider", "provider_configs:write"),
    # The worker opens it, never the edge.
    13: ActRule("proxy", "proxy:use", "proxy", "user-credentials", PROXIABLE, "oauth/worker"),
    14: ActRule("refresh", "proxy:use"),
    15: ActRule("verify_webhook", "proxy:use", "proxy", "user-credentials", (WEBHOOK_SECRET,), "oauth/worker"),
    16: ActRule("check_health", "connections:write"),
    # It opens nothing by itself: vault and keyservice take back what was kept.
    17: ActRule("reconnect", "connections:write", "reconnect", "user-credentials", IMPORTABLE),
    18: ActRule("erase_end_user", "connections:write", when_frozen=True),
    19: ActRule("place_decoy", "connections:write"),
    # One key that is stolen must not be enough to hide: these take access away, and nothing else.
    20: ActRule("rotate", "workspace:contain", when_frozen=True),
    21: ActRule("revoke_api_keys", "workspace:contain", when_frozen=True),
    22: ActRule("freeze", "workspace:contain", when_frozen=True),
    # Scopes that no API key has: a stolen one cannot make itself a member. Roles are in domain/members.
    23: ActRule("read_members", "members:read", when_frozen=True),
    24: ActRule("invite_member", "members:write"),
    25: ActRule("change_member_role", "members:write"),
    26: ActRule("remove_member", "members:write", when_frozen=True),
}
