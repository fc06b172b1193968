"""What edge seals itself: imported credentials and client secrets. It has the plaintext, so nobody behind it need have it."""

from __future__ import annotations

import re

from authpipe_consumer.payloads import access_payload, basic_payload
from authpipe_consumer.words import Consumer, Sealing
from authpipe_envelope import RecordClass
from authpipe_gateway_edge.domain.ports import Act, Authority, Coordinator
from authpipe_gateway_edge.domain.words import Caller, Connection, NewConnection, NewProviderConfig, ProviderConfig
from authpipe_gateway_edge.errors import MalformedRequestError
from authpipe_sensitive import Label, Secret, mask

# RFC 6749, appendix A: VSCHAR. No CR, LF or NUL reaches a header.
_VALUE = re.compile(rb"[\x20-\x7e]{1,16384}")
_LONGEST_SECRET = 16_384


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
            keys = await self._secrets.prepare(
                verdict.workspace, config.id, [RecordClass.CLIENT_SECRET], verdict.record_grant, caller.request_id
            )
            sealing = Sealing(config.provider, config.hosts, mask(new.client_secret))
            record = self._secrets.seal(keys[RecordClass.CLIENT_SECRET], sealing, new.client_secret)
            await self._secrets.put([record], [], verdict.record_grant, caller.request_id)
        return await self._coordinator.activate_config(verdict, config.id, caller.request_id)


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


def _value(value: Secret, name: str) -> Secret:
    if not value.matches(_VALUE):
        raise MalformedRequestError(field=Label(name))
    return value
