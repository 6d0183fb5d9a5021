"""The configuration: its schema, how a file is loaded, and how mistakes are told.

Used by the gateway, the programs and whoever needs the type of a table.
"""
