"""What a refresh that did not end has left, and what a Provider does with a refresh token that is used twice."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the columns; what stood there had ended, and of a Provider nothing is known but the worst."""
    op.execute(
        """
alter table leases add column unfinished text not null default '' check (unfinished in ('', 'spent', 'spooled'));
alter table leases add column unfinished_since timestamptz;
alter table leases add column unfinished_fence bigint not null default 0;
alter table leases add column retried boolean not null default false;
alter table provider_configs add column rotation text not null default 'strict'
    check (rotation in ('none', 'grace', 'strict'));
alter table provider_configs add column grace_seconds int not null default 0;
"""
    )
