"""What edge seals itself: imported credentials and client secrets. It has the plaintext, so nobody behind it need have it."""

from __future__ import annotations

import re

from authpipe_consumer.payloads import access_payload, basic_payload, material_payload, oauth1_payload
from authpipe_consumer.words import Consumer, Sealing
from authpipe_envelope import CLIENT_SECRETS, RecordClass
from authpipe_gateway_edge.domain.ports import Act, Authority, Coordinator
from authpipe_gateway_edge.domain.words import (
    Caller,
    Connection,
    NewConnection,
    NewProviderConfig,
    ProviderConfig,
    Verdict,
    require_id,
)
from authpipe_gateway_edge.errors import MalformedRequestError, TwoSecretsError
from authpipe_sensitive import Label, Secret, mask

# RFC 6749, appendix A: VSCHAR. No CR, LF or NUL reaches a header.
_VALUE = re.compile(rb"[\x20-\x7e]{1,16384}")
_TEXT = re.compile(rb"[\x20-\x7e\r\n]{1,16384}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_LONGEST_SECRET, _MOST_MATERIAL = 16_384, 10
_NOTHING: frozenset[str] = frozenset()
# What has to be brought, and what may be.
_MATERIAL = {
    "client_credentials": (_NOTHING, _NOTHING),
    "jwt_bearer": (frozenset({"private_key", "issuer"}), frozenset({"subject", "key_id"})),
    "token_exchange": (frozenset({"subject_token"}), frozenset({"subject_token_type"})),
    "two_step": (_NOTHING, _NOTHING),
}


class Importing:
    """Seals what customers bring.

    Args:
        authority: May I?
        coordinator: Reserves and activates ids.
        vault: The consumer of user credentials.
        secrets: The consumer of client secrets.
    """

    def __init__(self, authority: Authority, coordinator: Coordinator, vault: Consumer, secrets: Consumer) -> None:
        self._authority = authority
        self._coordinator = coordinator
        self._vault = vault
        self._secrets = secrets

    async def import_connection(self, caller: Caller, new: NewConnection) -> Connection:
        """Imports a credential: draft, seal, store, activate. What dies in between is a draft that is swept.

        Raises:
            MalformedRequestError: A secret is missing, too long, or has characters that no header takes.
            DomainError: Refused; the reason says why.
        """
        plaintexts = _plaintexts(new)
        classes = tuple(int(each) for each in plaintexts)
        # Step 1: reserve the id, under a grant that names none yet.
        verdict = await self._authority.authorize(caller, Act.DRAFT_CONNECTION, "")
        connection, provider, hosts = await self._coordinator.draft_connection(verdict, new, caller.request_id)
        # Step 2: write keys for that id alone; seal here; all records in one transaction.
        verdict = await self._authority.authorize(caller, Act.IMPORT_CONNECTION, connection, classes)
        keys = await self._vault.prepare(
            verdict.workspace, connection, list(plaintexts), verdict.record_grant, caller.request_id
        )
        records = []
        for record_class, (plaintext, shown) in plaintexts.items():
            expires = new.expires_at if record_class is RecordClass.ACCESS else None
            masked = mask(shown) if shown is not None else "…"
            sealing = Sealing(provider, hosts, masked, expires)
            with plaintext:
                records.append(self._vault.seal(keys[record_class], sealing, plaintext))
        await self._vault.put(records, [], verdict.record_grant, caller.request_id)
        # Step 3: now it is a connection.
        return await self._coordinator.activate_connection(verdict, connection, new, caller.request_id)

    async def configure(self, caller: Caller, new: NewProviderConfig) -> ProviderConfig:
        """Makes a provider configuration: draft, seal the secret, store it, activate.

        Raises:
            MalformedRequestError: The client secret is missing or too long.
            DomainError: Refused; the reason says why.
        """
        public = new.auth_method == "none"
        if public == bool(new.client_secret) or len(new.client_secret) > _LONGEST_SECRET:
            raise MalformedRequestError(field=Label("client_secret"))
        verdict = await self._authority.authorize(caller, Act.DRAFT_PROVIDER_CONFIG, "")
        config = await self._coordinator.draft_config(verdict, new, caller.request_id)
        verdict = await self._authority.authorize(caller, Act.CONFIGURE_PROVIDER, config.id)
        if not public:
            place, masked = RecordClass.CLIENT_SECRET, mask(new.client_secret)
            await self._seal_secret(verdict, config, place, new.client_secret, masked, caller.request_id)
        return await self._coordinator.activate_config(verdict, config.id, caller.request_id)

    async def add_secret(self, caller: Caller, config_id: str, secret: Secret) -> ProviderConfig:
        """Adds a second client secret: sealed in the place that is free, then taken into use.

        Raises:
            MalformedRequestError: It is missing or too long.
            DomainError: Refused; the reason says why.
        """
        if not 1 <= len(secret) <= _LONGEST_SECRET:
            raise MalformedRequestError(field=Label("client_secret"))
        verdict = await self._authority.authorize(caller, Act.READ_PROVIDER_CONFIGS, "")
        config = await self._coordinator.get_config(verdict, require_id(config_id))
        if len(config.secret_classes) != 1:
            raise TwoSecretsError if config.secret_classes else MalformedRequestError(field=Label("client_secret"))
        free = next(each for each in CLIENT_SECRETS if int(each) not in config.secret_classes)
        verdict = await self._authority.authorize(caller, Act.CONFIGURE_PROVIDER, config.id)
        await self._seal_secret(verdict, config, free, secret, mask(secret), caller.request_id)
        return await self._coordinator.activate_secret(verdict, config.id, int(free), caller.request_id)

    async def retire_secret(self, caller: Caller, config_id: str) -> ProviderConfig:
        """Takes the older client secret out of use, then overwrites it: no version of it opens any more."""
        verdict = await self._authority.authorize(caller, Act.CONFIGURE_PROVIDER, require_id(config_id))
        config, retired = await self._coordinator.retire_secret(verdict, config_id, caller.request_id)
        place = RecordClass(retired)
        await self._seal_secret(verdict, config, place, Secret(b"retired"), "…", caller.request_id)
        return config

    async def _seal_secret(
        self,
        verdict: Verdict,
        config: ProviderConfig,
        place: RecordClass,
        secret: Secret,
        masked: str,
        request_id: str,
    ) -> None:
        keys = await self._secrets.prepare(verdict.workspace, config.id, [place], verdict.record_grant, request_id)
        record = self._secrets.seal(keys[place], Sealing(config.provider, config.hosts, masked), secret)
        await self._secrets.put([record], [], verdict.record_grant, request_id)


def _plaintexts(new: NewConnection) -> dict[RecordClass, tuple[Secret, Secret | None]]:
    """Gives, per record class, the plaintext to seal and the value whose prefix may be shown."""
    match new.kind:
        case "api_key":
            api_key = _value(new.api_key, "api_key")
            return {RecordClass.API_KEY: (api_key.copy(), api_key)}
        case "webhook_secret":
            secret = _value(new.webhook_secret, "webhook_secret")
            return {RecordClass.WEBHOOK_SECRET: (secret.copy(), secret)}
        case "basic":
            pair = basic_payload(_value(new.username, "username"), _value(new.password, "password"))
            return {RecordClass.BASIC: (pair, None)}
        case "oauth1":
            token = _value(new.access_token, "access_token")
            return {RecordClass.OAUTH1: (oauth1_payload(token, _value(new.token_secret, "token_secret")), token)}
        case "oauth2" if new.renewal:
            return {RecordClass.REFRESH: (_material(new), None)}
        case "oauth2":
            access_token = _value(new.access_token, "access_token")
            plaintexts: dict[RecordClass, tuple[Secret, Secret | None]] = {
                RecordClass.ACCESS: (access_payload(access_token, new.scopes, new.expires_at), access_token)
            }
            if new.refresh_token:
                plaintexts[RecordClass.REFRESH] = (_value(new.refresh_token, "refresh_token").copy(), None)
            return plaintexts
        case _:
            raise MalformedRequestError(field=Label("kind"))


def _material(new: NewConnection) -> Secret:
    """Gives what tokens are asked for with, as it is sealed in the place of a refresh token."""
    wanted, possible = _MATERIAL.get(new.renewal, (None, None))
    if wanted is None or possible is None:
        raise MalformedRequestError(field=Label("renewal"))
    brought = dict(new.material)
    extra = set(brought) - wanted - possible if new.renewal != "two_step" else set()
    if (
        new.access_token
        or new.refresh_token
        or len(brought) != len(new.material)
        or extra
        or not wanted <= set(brought)
    ):
        raise MalformedRequestError(field=Label("material"))
    if len(brought) > _MOST_MATERIAL or not all(_NAME.fullmatch(name) for name in brought):
        raise MalformedRequestError(field=Label("material"))
    return material_payload({name: _text(value) for name, value in brought.items()})


def _text(value: Secret) -> Secret:
    # A private key has lines; it goes into no header.
    if not value.matches(_TEXT):
        raise MalformedRequestError(field=Label("material"))
    return value


def _value(value: Secret, name: str) -> Secret:
    if not value.matches(_VALUE):
        raise MalformedRequestError(field=Label(name))
    return value
