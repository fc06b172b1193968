"""Puts clientsecrets together; the rooms it shares with its twin are in authpipe_recordstore."""

from __future__ import annotations

import asyncio

from authpipe_rpc import run_process  # first: it sets grpc's cipher list

from authpipe.clientsecrets.v1 import clientsecrets_pb2, clientsecrets_pb2_grpc
from authpipe_recordstore import StoreConfig, serve_store
from authpipe_sensitive import Label


async def serve(config: StoreConfig, stop: asyncio.Event) -> None:
    """Serves client-secret records until told to stop."""
    service = clientsecrets_pb2.DESCRIPTOR.services_by_name["ClientSecrets"]
    register = clientsecrets_pb2_grpc.add_ClientSecretsServicer_to_server
    await serve_store(Label("clientsecrets"), "client-secrets", service, register, config, stop)


if __name__ == "__main__":
    run_process("clientsecrets", StoreConfig, serve)
