"""What edge says of connections, provider configurations, Providers and events, as it goes over the wire."""

from __future__ import annotations

from authpipe.gateway.v1 import gateway_pb2 as pb
from authpipe.types.v1 import events_pb2, records_pb2
from authpipe_gateway_edge.domain import logged, words
from authpipe_gateway_edge.servicer.public import to_wire_time


def event_shown(event: logged.Event) -> pb.LoggedEvent:
    """Gives an event of the log."""
    wire = events_pb2.AuditEvent(
        event_id=event.event_id,
        name=events_pb2.EventName.Value(f"EVENT_NAME_{event.name}"),
        emitter=event.emitter,
        sequence=event.sequence,
        workspace_id=event.workspace,
        actor=event.actor,
        target=event.target,
        purpose=records_pb2.Purpose.Value(f"PURPOSE_{event.purpose.upper() or 'UNSPECIFIED'}"),
        record_class=_class(event.record_class),
        record_version=event.record_version,
        outcome=events_pb2.Outcome.Value(f"OUTCOME_{event.outcome.upper() or 'UNSPECIFIED'}"),
        reason=event.reason,
        request_id=event.request_id,
        grant_id=event.grant_id,
        trace_id=event.trace_id,
        source_address=event.source_address,
        digest=event.digest,
        count=event.count,
        tree_size=event.tree_size,
        provider=event.provider,
        records=[
            events_pb2.RecordVersion(record_class=_class(each.record_class), record_version=each.record_version)
            for each in event.records
        ],
    )
    wire.time.FromDatetime(event.time)
    if event.until is not None:
        wire.until_time.FromDatetime(event.until)
    return pb.LoggedEvent(event=wire, leaf_index=event.leaf_index, trail=event.trail)


def _class(word: str) -> records_pb2.RecordClass.ValueType:
    return records_pb2.RecordClass.Value(f"RECORD_CLASS_{word.upper() or 'UNSPECIFIED'}")


def config_shown(config: words.ProviderConfig) -> pb.ProviderConfig:
    """Gives a provider configuration."""
    return pb.ProviderConfig(
        id=config.id,
        provider=config.provider,
        display_name=config.display_name,
        client_id=config.client_id,
        scopes=config.scopes,
        redirect_uris=config.redirect_uris,
        issuer=config.issuer,
        authorization_endpoint=config.authorization_endpoint,
        token_endpoint=config.token_endpoint,
        revocation_endpoint=config.revocation_endpoint,
        client_secret_masked=config.masked,
        create_time=to_wire_time(config.created_at),
        values=map(_question, config.questions),
        client_secret_count=len(config.secret_classes),
        grants=config.grants,
        dpop=config.dpop,
        notice=config.notice,
        notice_time=to_wire_time(config.noticed_at),
    )


def device_shown(flow: words.DeviceFlow) -> pb.DeviceFlow:
    """Gives a flow on another device."""
    return pb.DeviceFlow(
        connection_id=flow.connection_id,
        status=flow.status,
        user_code=flow.user_code,
        verification_uri=flow.verification_uri,
        verification_uri_complete=flow.verification_uri_complete,
        expire_time=to_wire_time(flow.expires_at),
    )


def _question(question: words.Question) -> pb.ValueQuestion:
    return pb.ValueQuestion(**question._asdict())


def provider_shown(provider: words.Provider) -> pb.Provider:
    """Gives a Provider of the catalog."""
    return pb.Provider(
        name=provider.name,
        display_name=provider.display_name,
        kinds=provider.kinds,
        own=provider.own,
        notes=provider.notes,
        values=map(_question, provider.questions),
    )


def _values(pairs: words.Pairs) -> list[pb.Value]:
    return [pb.Value(name=name, value=value) for name, value in pairs]


def connection_shown(connection: words.Connection) -> pb.Connection:
    """Gives a connection."""
    return pb.Connection(
        id=connection.id,
        state=connection.state,
        state_reason=connection.state_reason,
        kind=connection.kind,
        provider=connection.provider,
        provider_config_id=connection.provider_config_id,
        end_user_id=connection.end_user_id,
        scopes=connection.scopes,
        expire_time=to_wire_time(connection.expires_at),
        refreshable=connection.refreshable,
        masked=connection.masked,
        create_time=to_wire_time(connection.created_at),
        state_time=to_wire_time(connection.state_at),
        state_help=connection.state_help,
        refresh_failure=_failing(connection.failing),
        values=_values(connection.values),
        metadata=_values(connection.metadata),
        renewal=connection.renewal,
        health=_health(connection.health),
        rotate_time=to_wire_time(connection.rotate_at),
        rotation_due=connection.rotation_due,
        keep_until=to_wire_time(connection.keep_until),
    )


def _health(health: words.Health | None) -> pb.Health | None:
    if health is None:
        return None
    return pb.Health(state=health.state, reason=health.reason, check_time=to_wire_time(health.checked_at))


def _failing(failing: words.Failing | None) -> pb.RefreshFailure | None:
    if failing is None:
        return None
    return pb.RefreshFailure(
        reason=failing.reason,
        help=failing.helps,
        attempts=failing.attempts,
        since_time=to_wire_time(failing.since),
        retry_time=to_wire_time(failing.retry_at),
    )
