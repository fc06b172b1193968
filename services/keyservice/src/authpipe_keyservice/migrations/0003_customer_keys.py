"""Customers' own keys: bindings, and which DEK is under which."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Makes the table; DEKs that stand are under no customer's key."""
    op.execute(
        """
create table customer_keys (
    workspace_id text not null, key_id text not null, provider text not null, locator jsonb not null,
    state text not null check (state in ('primary', 'active', 'retired')),
    withdrawn boolean not null default false, created_at timestamptz not null default now(),
    primary key (workspace_id, key_id));
create unique index one_primary_customer_key on customer_keys (workspace_id) where state = 'primary';
create index customer_keys_in_use on customer_keys (workspace_id) where state <> 'retired';
alter table deks add column customer_key_id text not null default '';
create index deks_under_customer_keys on deks (workspace_id) where customer_key_id <> '';
"""
    )
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(f"grant select, insert, update on customer_keys to {role}")
