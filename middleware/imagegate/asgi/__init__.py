"""ASGI idioms: messages, bodies, responses, clients and requests to an application in the same process.

An edge: names ASGI and nothing else outside, and is used by everything that speaks it.
"""
