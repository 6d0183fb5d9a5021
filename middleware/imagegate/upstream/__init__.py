"""Conversations with providers: one account for each configured upstream.

Used by the layers Upstream and References, and by tasks that poll providers.
"""
