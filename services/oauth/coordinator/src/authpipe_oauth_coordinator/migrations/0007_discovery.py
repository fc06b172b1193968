"""Metadata that was found by issuer is fetched again."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds whether it was found, and when it was fetched last. What was described without a page was found by its issuer."""
    op.execute(
        """
alter table provider_configs add column discovered boolean not null default false,
    add column discovered_at timestamptz not null default now();
update provider_configs set discovered = true where issuer <> '' and not entry ? 'documentation';
create index provider_configs_discovered on provider_configs (discovered_at) where discovered and state = 'active';
"""
    )
