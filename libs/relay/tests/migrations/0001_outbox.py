"""The outbox alone, and a table to change beside it."""

from alembic import op

from authpipe_database import OUTBOX_SQL, outbox_grants

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes them."""
    op.execute(OUTBOX_SQL)
    op.execute("create table changes (id int primary key)")
    role = str(op.get_bind().exec_driver_sql("select current_database()").scalar())
    op.execute(f"grant select, insert on changes to {role};" + outbox_grants(role))
