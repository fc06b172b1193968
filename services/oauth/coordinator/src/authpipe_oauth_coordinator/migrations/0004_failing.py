"""Why the refreshes of a connection fail, since when, and until when nobody tries because somebody asks."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the columns."""
    op.execute(
        """
alter table connections add column refresh_failure text not null default '';
alter table connections add column refresh_failing_since timestamptz;
alter table connections add column refresh_not_before timestamptz;
update connections set refresh_attempts = 0;
"""
    )
