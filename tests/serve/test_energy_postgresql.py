"""What test_energy.py holds, on PostgreSQL."""

from serve.on_postgresql import *  # noqa: F403
from serve.test_energy import *  # noqa: F403
