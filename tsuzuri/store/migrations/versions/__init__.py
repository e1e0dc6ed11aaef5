"""The versions of the schema, by file name: v0001 -> v0002 -> …"""
