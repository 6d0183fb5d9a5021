"""Chooses who answers a request: the catalog, retries, circuit breakers, limits and fan-out.

Decisions are pure; the limiter and the fan-out run them on the event loop for the layer Route.
"""
