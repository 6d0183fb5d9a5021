"""Observability of an exchange: its record, hooks, log lines, Prometheus metrics and the console.

Layers write to the exchange's `Progress`; hooks read the record that is made of it.
"""
