"""Connection keys that are kept: they open nothing, and can be taken back until it is over."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the state and its end."""
    op.execute(
        """
alter table connection_keys drop constraint connection_keys_state_check;
alter table connection_keys add constraint connection_keys_state_check
    check (state in ('active', 'restricted', 'kept', 'destroyed'));
alter table connection_keys add column kept_until timestamptz;
create index connection_keys_kept on connection_keys (kept_until) where kept_until is not null and state <> 'destroyed';
"""
    )
