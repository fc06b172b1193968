"""End users by a pseudonym whose key can be destroyed."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """A key for each end user; whoever destroys it has a log in which nobody finds the person any more.

    The index begins with the end user: of one that begins with the workspace PostgreSQL thinks, until it has statistics,
    that it leads to a connection as well as the primary key, and goes through all of a workspace.
    """
    op.execute(
        """
create table subjects (
    workspace_id text, end_user_id text, subject_key bytea not null, primary key (workspace_id, end_user_id));
alter table flows add column subject text not null default '';
create index connections_of_end_user on connections (end_user_id, workspace_id);
"""
    )
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(
        f"grant select, insert, delete on subjects to {role}; grant update (end_user_id) on connect_sessions to {role};"
    )
