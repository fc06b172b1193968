"""Leaves, bodies, batches, tiles, heads, checkpoints, incidents: insert only. And what detectors remember."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables. The process's role may insert and select; it cannot update, delete or truncate; another role deletes bodies.

    A leaf stays for ever and says nothing; its body goes with retention. `workspace_id` is empty for the installation.
    """
    op.execute(
        """
create table leaves (
    trail smallint, leaf_index bigint, entry bytea not null,
    workspace_id text not null, position bigint not null, chain bytea not null,
    primary key (trail, leaf_index));
create unique index leaves_of_workspace on leaves (workspace_id, trail, position);

create table bodies (
    trail smallint, leaf_index bigint, workspace_id text not null, time timestamptz not null,
    name text not null, outcome text not null, actor text not null, target text not null, found_by bigint[] not null,
    record bytea not null, salt bytea not null,
    primary key (trail, leaf_index));
create index bodies_by_time on bodies (workspace_id, time desc, trail desc, leaf_index desc);
create index bodies_by_id on bodies using gin (found_by);
create index statements on bodies (trail, leaf_index) where name = 'CHAINS_STATED';

create table writes (
    trail smallint, workspace_id text, target text, record_class text, leaf_index bigint, version bigint not null,
    primary key (trail, workspace_id, target, record_class, leaf_index));
create index writes_by_leaf on writes (trail, leaf_index);

create table certificates (digest bytea primary key, chain bytea[] not null);
create table batches (
    trail smallint, first_leaf bigint, emitter text not null, first_sequence bigint not null, events int not null,
    hashes bytea not null, signature bytea not null, certificate bytea not null references certificates,
    primary key (trail, first_leaf));
create unique index batches_of_emitter on batches (trail, emitter, first_sequence);

create table tile_hashes (
    trail smallint, level smallint, hash_index bigint, hash bytea not null,
    primary key (trail, level, hash_index));
create table tree_heads (trail smallint, size bigint, frontier bytea[] not null, primary key (trail, size));
create table checkpoints (
    trail smallint, size bigint, note text not null, signed_at timestamptz not null default now(),
    primary key (trail, size));
create table cosignatures (
    trail smallint, size bigint, witness text, line text not null, primary key (trail, size, witness),
    foreign key (trail, size) references checkpoints);

create table incidents (
    id text primary key, detector text not null, severity smallint not null, workspace_id text not null,
    subject text not null, opened_at timestamptz not null, notify_by timestamptz);
create index incidents_of_subject on incidents (workspace_id, subject, detector, opened_at desc);
create index incidents_newest on incidents (opened_at desc, id desc);
create table incident_evidence (
    incident_id text references incidents, trail smallint, leaf_index bigint,
    primary key (incident_id, trail, leaf_index));
create table incident_changes (
    incident_id text references incidents, number int, state smallint not null, actor text not null,
    at timestamptz not null, primary key (incident_id, number));
create table notices_delivered (
    incident_id text references incidents, kind text, number int, sink text, at timestamptz not null default now(),
    primary key (incident_id, kind, number, sink));

create table watched (trail smallint primary key, next_leaf bigint not null);
insert into watched values (1, 0), (2, 0), (3, 0);
create table profiles (
    workspace_id text, subject text, states text not null, is_decoy boolean not null, seen_at timestamptz not null,
    primary key (workspace_id, subject));
create index profiles_unseen on profiles (seen_at) where not is_decoy;
"""
    )
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(
        "grant select, insert on leaves, bodies, writes, certificates, batches, tile_hashes, tree_heads, checkpoints, cosignatures,"
        f" incidents, incident_evidence, incident_changes, notices_delivered to {role};"
        # Whoever deletes bodies can do nothing else, and nobody can update.
        f"grant select on leaves to {role}_retention; grant select, delete on bodies, writes to {role}_retention;"
        # Whoever watches changes what it remembers, and nothing of the log.
        f"grant select on bodies to {role}_watch; grant select, update on watched to {role}_watch;"
        f" grant select, insert, update, delete on profiles to {role}_watch;"
    )
