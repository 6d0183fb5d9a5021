"""Requests with the same ``Idempotency-Key`` are one: joined in flight, replayed afterwards.

Used by the layer Idempotency.
"""
