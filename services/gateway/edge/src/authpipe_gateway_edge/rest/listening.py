"""The public REST listener: Granian, TLS 1.3 alone, in the event loop of the process."""

from __future__ import annotations

from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from authpipe_gateway_edge.rest.app import EdgeApp
from authpipe_rpc import ServerConfig


_BACKLOG = 1024


def rest_server(app: EdgeApp, listen: ServerConfig, certificate: Path, key: Path, connections: int) -> Server:
    """Makes the listener; granian's TLS minimum is 1.3.

    Args:
        app: What answers.
        listen: Where.
        certificate: PEM of the public chain.
        key: Its key, PKCS #8.
        connections: How many connections are open at most; granian takes no further one before one of them ends, and by
            itself it takes 128, idle ones counted, so that whoever keeps so many open would lock everybody out.
    """
    return Server(
        app,
        address=listen.host,
        port=listen.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.auto,
        websockets=False,
        log_enabled=False,
        ssl_cert=certificate,
        ssl_key=key,
        backlog=_BACKLOG,
        backpressure=connections,
    )
