"""What test_people.py holds, on PostgreSQL."""

from serve.on_postgresql import *  # noqa: F403
from serve.test_people import *  # noqa: F403
from serve.test_people import _cheap  # noqa: F401
