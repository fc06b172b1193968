"""What the owner of a provider configuration should know."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds a notice, a word of a closed list, and since when it stands."""
    op.execute(
        """
alter table provider_configs add column notice text not null default '', add column noticed_at timestamptz;
"""
    )
