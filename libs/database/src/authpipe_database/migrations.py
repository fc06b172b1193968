"""Runs a process's migrations as its owner role; the process itself runs as a role that cannot change tables.

A migration is a module with `revision`, `down_revision` and `upgrade()`, in the process's `migrations` folder. It works
before, during and after a deployment (STYLE, 13).
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.config import Config

from authpipe_database.connect import DatabaseConfig


def upgrade(config: DatabaseConfig, migrations: Path) -> list[str]:
    """Brings a database to the newest revision, in one transaction. Running it again does nothing.

    Args:
        config: The database, with the owner's role and certificate.
        migrations: The process's `migrations` folder.

    Returns:
        The revisions that were applied, oldest first.
    """
    alembic = Config()
    alembic.set_main_option("script_location", str(migrations))
    alembic.set_main_option("version_locations", str(migrations))
    alembic.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(alembic)
    applied: list[str] = []
    engine = sa.create_engine("postgresql+psycopg://", connect_args=config.conninfo(), poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(71)"))
        context = MigrationContext.configure(connection)
        current = context.get_current_revision()
        steps = (
            [] if current == script.get_current_head() else list(script.iterate_revisions("head", current or "base"))
        )
        with Operations.context(context):
            for step in reversed(steps):
                step.module.upgrade()
                applied.append(step.revision)
        if applied:
            context.stamp(script, "head")
    engine.dispose()
    return applied
