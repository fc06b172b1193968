"""Records, states of connections, outbox."""

from alembic import op

from authpipe_database import OUTBOX_SQL, outbox_grants

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables and gives the process's role what it needs, by its own name: the database's name."""
    op.execute(
        """
create table records (
    workspace_id text not null, connection_id text not null, record_class int not null,
    version bigint not null check (version > 0), record bytea not null, provider text not null,
    hosts_digest bytea not null, masked text not null, expires_at timestamptz, fence bigint not null,
    primary key (workspace_id, connection_id, record_class));
create table connection_states (
    workspace_id text not null, connection_id text not null, fence bigint not null,
    state text not null check (state in ('active', 'withheld', 'deleted')),
    primary key (workspace_id, connection_id));
"""
    )
    op.execute(OUTBOX_SQL)
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(
        f"""
grant select, insert, update, delete on records to {role};
grant select, insert, update on connection_states to {role};
"""
        + outbox_grants(str(role))
    )
