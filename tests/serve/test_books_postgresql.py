"""What test_books.py holds, on PostgreSQL."""

from serve.on_postgresql import *  # noqa: F403
from serve.test_books import *  # noqa: F403
