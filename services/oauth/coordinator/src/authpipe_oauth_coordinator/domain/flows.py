"""Connect flows: from a session to a connection (promises P13, P14, P15; cases 18, 19, 20)."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from authpipe_envelope import hosts_digest
from authpipe_oauth_coordinator.domain.due import due_at
from authpipe_oauth_coordinator.domain.leasing import Leasing
from authpipe_oauth_coordinator.domain.ports import (
    AuditLog,
    Clock,
    ConfigStore,
    ConnectionStore,
    FlowStore,
    Job,
    Records,
    Worker,
)
from authpipe_oauth_coordinator.domain.urls import authorization_url, origin, require_listed
from authpipe_oauth_coordinator.domain.words import (
    audit_entry,
    Acting,
    Connection,
    Ending,
    Flow,
    Kind,
    Lease,
    Left,
    ProviderConfig,
    Session,
    State,
)
from authpipe_oauth_coordinator.errors import (
    DisconnectedError,
    ExchangeError,
    FlowError,
    GrantNotOfferedError,
    IssuerMismatchError,
    LeaseHeldError,
    MalformedError,
    NotFoundError,
    ProviderDeniedError,
    SessionError,
)
from authpipe_providers import ValueRule, connection_hosts, fill, require_values, urls
from authpipe_sensitive import DomainError, Label

_LIFE = timedelta(minutes=10)
_BINDING_SIZE = 32
_BY_BROWSER = {"authorization_code", "oauth1"}
_LONGEST_CODE = 4_096
_MOST_VALUES, _LONGEST_NAME, _LONGEST_VALUE = 20, 31, 100
_LEASE_ATTEMPTS, _LEASE_PAUSE_SECONDS = 50, 0.1


@dataclass(frozen=True, slots=True)
class Callback:
    """What came to the redirect URI.

    Args:
        state: The state.
        binding: The browser's cookie, 32 bytes.
        code: The authorization code; empty with an error.
        iss: The issuer; empty: absent.
        denied: Whether the Provider answered with `error=`.
        request_id: The request.
        oauth_token: With OAuth 1.0a: the token of the temporary credentials; the code is then the verifier.
    """

    state: str
    binding: bytes
    code: str
    iss: str
    denied: bool
    request_id: str
    oauth_token: str = ""


class Flows:
    """The rules over sessions and flows.

    Args:
        configs: The table of provider configurations.
        flows: The table of sessions and flows.
        connections: The table of connections.
        leasing: Leases of connections.
        worker: The worker.
        vault: The store of user credentials, where a code verifier waits.
        audit: The audit log.
        clock: Gives the time, with zone.
        new_id: Makes an id with a prefix.
        new_token: Makes 256 random bits, base64url.
        pseudonym: Gives by which the log knows an end user of a workspace.
    """

    def __init__(  # required means argument
        self,
        configs: ConfigStore,
        flows: FlowStore,
        connections: ConnectionStore,
        leasing: Leasing,
        worker: Worker,
        vault: Records,
        audit: AuditLog,
        clock: Clock,
        new_id: Callable[[str], str],
        new_token: Callable[[], str],
        jitter: Callable[[], float],
        pseudonym: Callable[[str, str], Awaitable[str]],
    ) -> None:
        self._configs = configs
        self._flows = flows
        self._connections = connections
        self._leasing = leasing
        self._worker = worker
        self._vault = vault
        self._audit = audit
        self._clock = clock
        self._new_id = new_id
        self._new_token = new_token
        self._pseudonym = pseudonym
        self._jitter = jitter

    async def create_session(
        self,
        acting: Acting,
        end_user_id: str,
        config_ids: tuple[str, ...],
        values: Mapping[str, str],
        connection_id: str = "",
    ) -> tuple[str, Session]:
        """Makes a connect session: for a new connection, or to connect the account of one again, which keeps its id.

        Raises:
            DisconnectedError: The connection is disconnected; it does not come back.
            MalformedError: The end user's id is missing or too long.
            NotFoundError: A provider configuration does not exist.
        """
        if not 1 <= len(end_user_id) <= 200 or not end_user_id.isprintable():
            raise MalformedError(field=Label("end_user_id"))
        for config_id in config_ids:
            if await self._configs.get_config(acting.workspace, config_id) is None:
                raise NotFoundError
        token = self._new_token()
        if len(values) > _MOST_VALUES or not all(map(_is_value, values, values.values())):
            raise MalformedError(field=Label("values"))
        if connection_id:
            again = await self._again(acting.workspace, connection_id)
            if again.end_user_id != end_user_id or (config_ids and config_ids != (again.provider_config_id,)):
                raise MalformedError(field=Label("connection_id"))
            # The same OAuth client and the same values: what is sealed for it may go to the same hosts.
            config_ids, values = (again.provider_config_id,), dict(again.values)
        session = Session(
            acting.workspace,
            end_user_id,
            config_ids,
            self._clock() + _LIFE,
            tuple(sorted(values.items())),
            connection_id,
        )
        await self._flows.add_session(_hash(token), session, audit_entry("CONNECT_SESSION_CREATED", acting, ""))
        return token, session

    async def choices(self, token: str) -> list[tuple[ProviderConfig, list[ValueRule]]]:
        """Gives what a session may connect, and for each what the end user is asked for.

        Raises:
            SessionError: It is unknown or over.
        """
        session = await self._session(token)
        configs = await self._configs.list_configs(session.workspace, 200, "")
        wanted = session.provider_config_ids
        known = dict(session.values)
        return [
            (config, [rule for rule in config.entry.values if rule.name not in known])
            for config in configs
            if not wanted or config.id in wanted
        ]

    async def begin(  # each is needed
        self,
        token: str,
        config_id: str,
        binding: bytes,
        redirect_uri: str,
        request_id: str,
        answered: Mapping[str, str] | None = None,
    ) -> str:
        """Begins a flow and gives the authorization URL. PKCE always, state always: there is no switch.

        Raises:
            SessionError: The session is unknown, over, or not for this provider configuration.
            RedirectUriError: The redirect URI is not in the allowlist.
            MalformedError: The browser has no binding.
            ValueNotAllowedError: What the Provider asks each connection for is missing, or of another form.
        """
        session = await self._session(token)
        if len(binding) != _BINDING_SIZE:
            raise MalformedError(field=Label("browser_binding"))
        config = await self._configs.get_config(session.workspace, config_id)
        if config is None or (session.provider_config_ids and config_id not in session.provider_config_ids):
            raise SessionError
        if not _BY_BROWSER & set(config.entry.grants) or not config.endpoints.authorization_endpoint:
            raise GrantNotOfferedError
        require_listed(redirect_uri, config.redirect_uris)
        subject = await self._pseudonym(session.workspace, session.end_user_id)
        acting = Acting(session.workspace, subject, request_id)
        # What the customer said counts more than what the end user did.
        said = (dict(answered) if answered else {}) | dict(session.values)
        rules = config.entry.values
        values = require_values(rules, {rule.name: said[rule.name] for rule in rules if rule.name in said})
        # Step 1: the flow, with the endpoints it began with. It is there before what it will need: should we die, the
        # sweep finds it.
        connection_id = session.connection_id or self._new_id("con")
        state = self._new_token()
        flow = Flow(
            session.workspace,
            connection_id,
            config_id,
            session.end_user_id,
            _hash_bytes(binding),
            redirect_uri,
            config.endpoints,
            self._clock() + _LIFE,
            tuple(sorted(values.items())),
            subject,
        )
        await self._flows.add_flow(_hash(state), flow, audit_entry("FLOW_BEGUN", acting, connection_id))
        # Step 2: what the worker makes and keeps sealed for it, and where the browser goes.
        job = Job(
            acting, connection_id, config, config.endpoints, purpose="store", authenticate=False, values=flow.values
        )
        lead = self._lead_oauth1 if config.endpoints.temporary_endpoint else self._lead
        if not session.connection_id:
            return await lead(job, redirect_uri, state)
        await self._again(session.workspace, connection_id)
        async with self._leased(acting, connection_id) as fence:
            return await lead(dataclasses.replace(job, fence=fence), redirect_uri, state)

    async def _lead(self, job: Job, redirect_uri: str, state: str) -> str:
        """Gives the authorization URL. The worker makes the code verifier; only its challenge comes back."""
        config = job.config
        challenge, jkt = await self._worker.prepare_flow(job)
        parameters = _parameters(config, redirect_uri, state, challenge, jkt)
        where = fill(config.endpoints.authorization_endpoint, dict(job.values), config.entry.values)
        if not config.endpoints.pushed_endpoint:
            return authorization_url(where, parameters)
        # RFC 9126: what is asked for goes to the Provider directly, and the browser carries a name for it.
        authenticate = config.endpoints.auth_method != "none"
        failure, request_uri = await self._worker.push_authorization(
            dataclasses.replace(job, authenticate=authenticate), parameters
        )
        if failure:
            raise ExchangeError(provider_reason=Label(failure))
        return authorization_url(where, {"client_id": config.client_id, "request_uri": request_uri})

    async def _lead_oauth1(self, job: Job, redirect_uri: str, state: str) -> str:
        """Gives the authorization URL of RFC 5849, section 2.2.

        There is no PKCE and no state in it. What comes back is worth nothing without the secret of the temporary credentials,
        which the worker keeps sealed in the place of a code verifier; our state is in the callback URL.
        """
        config, dialect = job.config, job.config.entry.dialect
        callback = authorization_url(redirect_uri, {"state": state})
        failure, token = await self._worker.begin_oauth1(dataclasses.replace(job, authenticate=True), callback)
        if failure:
            raise ExchangeError(provider_reason=Label(failure))
        parameters = dict(dialect.authorization_parameters) | {"oauth_token": token}
        if config.scopes:
            parameters["scope"] = dialect.scope_separator.join(config.scopes)
        where = fill(config.endpoints.authorization_endpoint, dict(job.values), config.entry.values)
        return authorization_url(where, parameters)

    async def complete(self, callback: Callback) -> Connection:
        """Ends a flow.

        Raises:
            FlowError: The state is unknown, used, over or of another browser.
            IssuerMismatchError: `iss` is wrong, or missing where the Provider promises it.
            ProviderDeniedError: The Provider answered with an error.
            ExchangeError: The Provider did not exchange the code.
        """
        # Step 1: use the state up, whatever comes: a state seen twice is worth nothing.
        flow = await self._flows.use_flow(
            _hash(callback.state),
            lambda flow: audit_entry("FLOW_STATE_USED", _end_user(flow, callback.request_id), flow.connection_id),
        )
        if flow is None:
            raise FlowError
        acting = _end_user(flow, callback.request_id)
        try:
            self._check(flow, callback)
        except DomainError as error:
            entry = audit_entry("FLOW_REFUSED", acting, flow.connection_id, reason=error.reason, outcome="REFUSED")
            await self._connections.note(entry)
            raise
        config = await self._configs.get_config(flow.workspace, flow.provider_config_id)
        if config is None:
            raise FlowError
        # Step 2: preflight, and a draft of the connection, before the code is spent: should we die, it is swept.
        await self._audit.require_reachable()
        there = await self._connections.get_connection(flow.workspace, flow.connection_id)
        if there is not None:
            return await self._reconnect(acting, flow, config, callback)
        connection = self._draft(flow, config)
        await self._connections.add_connection(connection, audit_entry("CONNECTION_DRAFTED", acting, connection.id))
        # Step 3: the worker exchanges the code at the endpoints that the flow began with.
        job = Job(
            acting,
            flow.connection_id,
            config,
            flow.endpoints,
            purpose="exchange",
            authenticate=flow.endpoints.auth_method != "none",
            scopes=config.scopes,
            values=flow.values,
        )
        outcome = await self._worker.exchange_code(job, callback.code, flow.redirect_uri, callback.oauth_token)
        if outcome.failure:
            entry = audit_entry("CONNECTION_FAILED", acting, connection.id, reason=outcome.failure)
            await self._connections.move(
                flow.workspace, connection.id, (State.DRAFT,), State.DISCONNECTING, outcome.failure, entry
            )
            raise ExchangeError(provider_reason=Label(outcome.failure))
        # Step 4: active, with its event.
        entry = audit_entry("CONNECTION_CREATED", acting, connection.id)
        due = due_at(self._clock(), outcome.expires_at, self._jitter()) if outcome.refreshable else None
        active = await self._connections.activate(flow.workspace, connection.id, outcome, due, entry)
        if active is None:
            raise FlowError
        return active

    async def _reconnect(self, acting: Acting, flow: Flow, config: ProviderConfig, callback: Callback) -> Connection:
        """Exchanges a code for a connection that is there already, under its lease; it keeps its id."""
        connection = await self._again(flow.workspace, flow.connection_id)
        entry = audit_entry("CONNECTION_CREATED", acting, connection.id)
        job = Job(
            acting,
            connection.id,
            config,
            flow.endpoints,
            purpose="exchange",
            authenticate=flow.endpoints.auth_method != "none",
            scopes=config.scopes,
            values=flow.values,
        )
        lease = await self._acquire(acting, connection.id)
        with self._leasing.kept(flow.workspace, connection.id, lease.fence):
            outcome = await self._worker.exchange_code(
                dataclasses.replace(job, fence=lease.fence), callback.code, flow.redirect_uri, callback.oauth_token
            )
        if outcome.failure:
            # What is stored stays: a code that was not exchanged takes nothing away.
            failed = audit_entry("CONNECTION_FAILED", acting, connection.id, reason=outcome.failure)
            await self._leasing.end(flow.workspace, connection.id, lease.fence, None, failed)
            raise ExchangeError(provider_reason=Label(outcome.failure))
        due = due_at(self._clock(), outcome.expires_at, self._jitter()) if outcome.refreshable else None
        ending = Ending(outcome, left=Left(), due=due)
        await self._leasing.end(flow.workspace, connection.id, lease.fence, ending, entry)
        found = await self._connections.get_connection(flow.workspace, connection.id)
        if found is None:
            raise FlowError
        return found

    async def _again(self, workspace: str, connection_id: str) -> Connection:
        """Gives a connection whose account may be connected again."""
        found = await self._connections.get_connection(workspace, connection_id)
        if found is None or found.kind not in {Kind.OAUTH2, Kind.OAUTH1} or found.state is State.DRAFT:
            raise NotFoundError
        if found.state not in {State.ACTIVE, State.NEEDS_REAUTH}:
            raise DisconnectedError
        return found

    @asynccontextmanager
    async def _leased(self, acting: Acting, connection_id: str) -> AsyncIterator[int]:
        lease = await self._acquire(acting, connection_id)
        try:
            yield lease.fence
        finally:
            await self._leasing.end(acting.workspace, connection_id, lease.fence)

    async def _acquire(self, acting: Acting, connection_id: str) -> Lease:
        """Takes the lease of a connection; a refresh that goes on has it for a moment.

        Raises:
            LeaseHeldError: It was held for five seconds.
        """
        for _ in range(_LEASE_ATTEMPTS):
            entry = audit_entry("RECONNECT_BEGUN", acting, connection_id)
            lease = await self._leasing.acquire(acting.workspace, connection_id, entry)
            if lease is not None:
                return lease
            await asyncio.sleep(_LEASE_PAUSE_SECONDS)
        raise LeaseHeldError

    async def sweep(self) -> None:
        """Erases what flows left that led to no connection: the code verifier and its key."""
        for flow in await self._flows.abandoned_flows():
            acting = Acting(flow.workspace, "service:oauth/coordinator", self._new_id("req"))
            await self._vault.delete(flow.workspace, flow.connection_id, acting.request_id)
            await self._flows.end_flow(flow, audit_entry("FLOW_ENDED", acting, flow.connection_id))

    def _check(self, flow: Flow, callback: Callback) -> None:
        if self._clock() >= flow.expires_at:
            raise FlowError
        if not hmac.compare_digest(_hash_bytes(callback.binding), flow.binding_hash):
            raise FlowError
        # RFC 9207, section 2.4: compared to the letter; missing where it was promised is as bad as wrong.
        issuer = flow.endpoints.issuer
        for name, value in flow.values:
            issuer = issuer.replace(f"{{{name}}}", value)
        differs = bool(issuer) and callback.iss != issuer
        if differs and (callback.iss or flow.endpoints.iss_required):
            raise IssuerMismatchError
        if callback.denied:
            raise ProviderDeniedError
        for brought in (callback.code, callback.oauth_token or "-"):
            if not 1 <= len(brought) <= _LONGEST_CODE or not brought.isprintable():
                raise ProviderDeniedError
        # What one of the two kinds of Provider sends back is nothing for the other.
        if bool(callback.oauth_token) != bool(flow.endpoints.temporary_endpoint):
            raise ProviderDeniedError

    def _draft(self, flow: Flow, config: ProviderConfig) -> Connection:
        now = self._clock()
        return Connection(
            workspace=flow.workspace,
            id=flow.connection_id,
            state=State.DRAFT,
            state_reason="",
            state_at=now,
            kind=Kind.OAUTH1 if config.endpoints.temporary_endpoint else Kind.OAUTH2,
            provider=config.provider,
            provider_config_id=config.id,
            end_user_id=flow.end_user_id,
            scopes=(),
            expires_at=None,
            refreshable=False,
            hosts=hosts_digest(connection_hosts(urls(config.entry), dict(flow.values), config.entry.values)),
            refreshed_at=now,
            created_at=now,
            values=flow.values,
        )

    async def _session(self, token: str) -> Session:
        session = await self._flows.get_session(_hash(token))
        if session is None or self._clock() >= session.expires_at:
            raise SessionError
        return session


def _parameters(config: ProviderConfig, redirect_uri: str, state: str, challenge: str, dpop_jkt: str) -> dict[str, str]:
    """Gives what is asked for with a browser (RFC 6749, section 4.1.1; RFC 7636, section 4.3)."""
    dialect = config.entry.dialect
    parameters = dict(dialect.authorization_parameters) | {
        "response_type": "code",
        "client_id": config.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    if config.scopes:
        parameters[dialect.scope_parameter] = dialect.scope_separator.join(config.scopes)
        if "offline_access" in config.scopes and "prompt" not in parameters:
            # OpenID Connect Core, section 11: a refresh token needs consent.
            parameters["prompt"] = "consent"
    if dialect.resource:
        parameters["resource"] = dialect.resource
    if dpop_jkt:
        # RFC 9449, section 10: the code too is worth nothing without the key.
        parameters["dpop_jkt"] = dpop_jkt
    return parameters


def _is_value(name: str, value: str) -> bool:
    return len(name) <= _LONGEST_NAME and 1 <= len(value) <= _LONGEST_VALUE and value.isprintable()


def authorization_origin(config: ProviderConfig) -> str:
    """Gives the origin that a browser will be sent to, to be shown; it may have placeholders."""
    return origin(config.endpoints.authorization_endpoint)


def _hash(token: str) -> bytes:
    return _hash_bytes(token.encode())


def _hash_bytes(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _end_user(flow: Flow, request_id: str) -> Acting:
    return Acting(flow.workspace, flow.subject, request_id)
