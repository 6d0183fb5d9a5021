"""Coalesces concurrent requests with the same ``Idempotency-Key``, and replays the response afterwards.

Used by the layer Idempotency.
"""
