"""Where the owner of a run is led back to, after they answered its prompt"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("return_to", sa.String(length=2048), server_default="", nullable=False))
