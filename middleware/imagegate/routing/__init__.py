"""Selects the upstream for a request: the catalog, retries, circuit breakers, limits and fan-out.

Decisions are pure; the limiter and the fan-out apply them on the event loop for the layer Route.
"""
