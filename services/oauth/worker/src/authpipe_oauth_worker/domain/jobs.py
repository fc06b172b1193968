"""The jobs, put together: each is a story in a room of its own, all of them at one desk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from authpipe_consumer.words import Consumer
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.device import Device
from authpipe_oauth_worker.domain.exchange import Exchange
from authpipe_oauth_worker.domain.nonces import Nonces
from authpipe_oauth_worker.domain.oauth1 import OAuth1
from authpipe_oauth_worker.domain.ports import Asks, Bodies, Proofs, Sender, Signs, Spool
from authpipe_oauth_worker.domain.refresh import Refresh
from authpipe_oauth_worker.domain.revoke import Revoke


class Jobs:
    """Carries out jobs.

    Args:
        vault: The consumer of user credentials.
        secrets: The consumer of client secrets.
        egress: The way out.
        bodies: Looks inside answers.
        spool: Where a sealed answer waits while vault is away.
        asks: Writes what tokens are asked for with, where it is not a refresh token.
        sign: Signs requests as OAuth 1.0a wants it.
        proofs: Makes keys that tokens are bound to, and proofs of having them.
        nonces: What servers want in those.
        clock: Gives the time, with zone.
        randomness: Gives random bytes.
    """

    def __init__(
        self,
        vault: Consumer,
        secrets: Consumer,
        egress: Sender,
        bodies: Bodies,
        spool: Spool,
        asks: Asks,
        sign: Signs,
        proofs: Proofs,
        nonces: Nonces,
        clock: Callable[[], datetime],
        randomness: Callable[[int], bytes],
    ) -> None:
        self.desk = Desk(vault, secrets, egress, bodies, clock, proofs, nonces)
        exchange, device = Exchange(self.desk, randomness), Device(self.desk)
        self.prepare_flow = exchange.prepare_flow
        self.push_authorization = exchange.push_authorization
        oauth1 = OAuth1(self.desk, sign)
        self.exchange_code = exchange.exchange_code
        self.begin_oauth1, self.exchange_verifier = oauth1.begin, oauth1.exchange
        self.begin_device = device.begin_device
        self.poll_device = device.poll_device
        self.refresh = Refresh(self.desk, spool, asks).refresh
        self.revoke = Revoke(self.desk).revoke
