"""When a connection is refreshed by itself, how often it has failed in a row, and when it was last taken up."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the columns; what is refreshable already is due at four fifths of what is left of its life."""
    op.execute(
        """
alter table connections add column refresh_due_at timestamptz;
alter table connections add column refresh_attempts int not null default 0;
alter table connections add column claimed_at timestamptz;
update connections set refresh_due_at = greatest(now(), expires_at - least(interval '15 minutes', (expires_at - now()) / 5))
    where refreshable and expires_at is not null and state = 'active';
create index connections_due on connections (refresh_due_at) where state = 'active' and refresh_due_at is not null;
create index connections_claimed on connections (claimed_at) where claimed_at is not null;
"""
    )
