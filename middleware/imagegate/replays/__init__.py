"""Answers that are kept under idempotency keys, and calls that several requests share."""
