"""When a floor was raised: a reader that was on its way just then is no rollback."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the column; null: long ago."""
    op.execute("alter table floors add column raised_at timestamptz")
