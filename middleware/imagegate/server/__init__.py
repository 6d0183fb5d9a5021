"""The standalone server: how uvicorn runs the gateway, and what bounds clients before a request is admitted.

A program: imports everything, and nothing imports it but other programs, which run applications in threads.
"""
