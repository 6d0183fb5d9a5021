"""The standalone server: how uvicorn runs the gateway.

A program: imports everything, and nothing imports it but other programs, which run applications in threads.
"""
