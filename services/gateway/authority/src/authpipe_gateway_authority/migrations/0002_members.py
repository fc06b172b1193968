"""Members, their sessions, and the challenges that were used."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the tables. A session that has ended is deleted, and so is a challenge once it is too old to be used again."""
    op.execute(
        """
create table members (
    workspace_id text not null references workspaces, member_id text not null, email text not null,
    role text not null, state text not null, invitation_hash bytea unique, invited_until bigint not null,
    credential_id bytea unique, credential bytea not null, sign_count bigint not null,
    epoch int not null, mac bytea not null, created_at timestamptz not null default now(),
    primary key (workspace_id, member_id));
create unique index one_member_of_an_address on members (workspace_id, lower(email)) where state <> 'removed';
create table dashboard_sessions (
    workspace_id text not null, session_id text not null, member_id text not null,
    token_hash bytea not null unique, expires_at bigint not null, epoch int not null, mac bytea not null,
    created_at timestamptz not null default now(),
    primary key (workspace_id, session_id),
    foreign key (workspace_id, member_id) references members);
create table spent_challenges (nonce bytea primary key, until bigint not null);
create index spent_challenges_by_time on spent_challenges (until);
"""
    )
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(
        f"grant select, insert, update on members to {role};"
        f"grant select, insert, update, delete on dashboard_sessions to {role};"
        f"grant select, insert, delete on spent_challenges to {role};"
    )
