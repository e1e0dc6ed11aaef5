"""版の部屋 (+)：一つのファイルがスキーマの一つの版。 / Migrations: one file, one version of the schema, applied in the order of their names.

`open` applies what is missing, in one transaction. A version that has been released is never changed; a new one is added.
"""
