"""What test_attack_matrix.py holds, on PostgreSQL."""

from serve.on_postgresql import *  # noqa: F403
from serve.test_attack_matrix import *  # noqa: F403
