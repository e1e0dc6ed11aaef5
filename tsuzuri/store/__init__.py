"""保管の部屋：失ってはならないもの。 / Store room: what must not be lost.

Enters: keys, users, money, audit records. Leaves: the same, after a crash, a kill or a power cut, or a refusal that says why.
Open first: `database.py` (one door to SQLite and PostgreSQL), then `tables.py` (every table on one screen).

    secrets.py   the pepper and the master key: files of their own, outside the data directory
    keys.py      API keys          users.py   people, passwords, sessions, the first administrator
    ledger.py    budgets           prices.py  what a model costs, by date
    audit.py     what happened, in a chain        sealed.py  encrypted columns, and erasing them
    backup.py    all rows into one file and back

SQLAlchemy Core, no ORM. A new column is a line in `tables.py` and a file in `migrations/versions`. Nothing here imports torch.
"""
