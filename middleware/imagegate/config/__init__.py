"""The configuration: its schema, the loading of a file, and the messages about mistakes in it.

Used by the gateway, the programs, and every package that needs the type of a table.
"""
