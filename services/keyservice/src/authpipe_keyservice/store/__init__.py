"""SQL for keyservice's own tables, a room for each kind; no rule. Hot statements go over psycopg directly (FACTS)."""

from authpipe_keyservice.store.checkpoints import CheckpointTable
from authpipe_keyservice.store.customer_keys import CustomerKeyTable
from authpipe_keyservice.store.deks import DekTable
from authpipe_keyservice.store.keks import KekTable
from authpipe_keyservice.store.keys import KeyTable
from authpipe_keyservice.store.replicas import ReplicaTable
from authpipe_keyservice.store.workspaces import WorkspaceTable

__all__ = ["CheckpointTable", "CustomerKeyTable", "DekTable", "KekTable", "KeyTable", "ReplicaTable", "WorkspaceTable"]
