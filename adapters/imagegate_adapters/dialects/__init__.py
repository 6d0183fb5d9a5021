"""Ways of speaking that several providers share: what adapters would otherwise each have a copy of.

Pure functions that write requests and read replies, and what classes of adapters have in common; no contracts.
"""
