"""What test_access.py holds, on PostgreSQL; where servers always count together, which test_two_servers.py holds."""

from serve.on_postgresql import *  # noqa: F403
from serve.test_access import *  # noqa: F403

del test_two_servers_on_one_sqlite_count_together_where_they_are_told_to  # noqa: F821
