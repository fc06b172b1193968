"""Connections that are kept: nothing of them is served or written, until they are taken back."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the state."""
    op.execute(
        """
alter table connection_states drop constraint connection_states_state_check;
alter table connection_states add constraint connection_states_state_check
    check (state in ('active', 'withheld', 'kept', 'deleted'));
"""
    )
