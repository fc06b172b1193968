"""KEK versions with states, replicas and what they were told, DEK and connection key versions, erasure of workspaces."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the tables. Keys that stand already are on the KEK version that their rows name, which is primary."""
    op.execute(
        """
create table kek_versions (
    version int primary key,
    state text not null check (state in ('prepared', 'primary', 'active', 'disabled', 'destroyed')),
    canary bytea not null default ''::bytea,
    created_at timestamptz not null default now(), primary_at timestamptz, disabled_at timestamptz,
    held boolean not null default false, first_destroyer text not null default '', destruction_asked_at timestamptz,
    erased boolean not null default false);
create unique index one_primary_kek on kek_versions ((true)) where state = 'primary';
create unique index one_prepared_kek on kek_versions ((true)) where state = 'prepared';
insert into kek_versions (version, state, primary_at)
    select max(kek_version), 'primary', now() from deks having count(*) > 0;

create table replicas (replica_id text primary key, seen_at timestamptz not null, obeyed bigint not null);
create table kek_proofs (version int not null, replica_id text not null, primary key (version, replica_id));
create table cache_orders (
    id bigint generated always as identity primary key, workspace_id text not null, connection_id text not null,
    created_at timestamptz not null default now());

alter table deks add column state text not null default 'primary'
    check (state in ('primary', 'active', 'disabled', 'destroyed'));
create index deks_by_kek on deks (kek_version);
create index deks_by_age on deks (created_at) where state = 'primary';
create index deks_to_leave on deks (workspace_id) where state = 'active';
create unique index one_primary_dek on deks (workspace_id) where state = 'primary';
create table workspace_erasures (
    workspace_id text primary key, due_at timestamptz not null, done boolean not null default false);

create table retired_connection_keys (
    workspace_id text not null, connection_id text not null, version int not null, dek_version int not null,
    wrapped bytea not null,
    primary key (workspace_id, connection_id, version));
alter table floors add column key_version int not null default 1;
alter table floors add column prepared_key_version int not null default 1;
alter table floors add column prepared_at timestamptz not null default now();
"""
    )
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(
        f"""
grant select, insert, update on kek_versions to {role};
grant select, insert, update, delete on replicas to {role};
grant select, insert, delete on kek_proofs to {role};
grant select, insert, delete on cache_orders to {role};
grant update on deks to {role};
grant select, insert, update, delete on workspace_erasures to {role};
grant select, insert, update, delete on retired_connection_keys to {role};
"""
    )
