"""Puts vault together; the rooms it shares with its twin are in authpipe_recordstore."""

from __future__ import annotations

import asyncio

from authpipe_rpc import run_process  # first: it sets grpc's cipher list

from authpipe.vault.v1 import vault_pb2, vault_pb2_grpc
from authpipe_recordstore import StoreConfig, serve_store
from authpipe_sensitive import Label


async def serve(config: StoreConfig, stop: asyncio.Event) -> None:
    """Serves user-credential records until told to stop."""
    service = vault_pb2.DESCRIPTOR.services_by_name["Vault"]
    register = vault_pb2_grpc.add_VaultServicer_to_server
    await serve_store(Label("vault"), "user-credentials", service, register, config, stop)


if __name__ == "__main__":
    run_process("vault", StoreConfig, serve)
