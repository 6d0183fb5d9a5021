"""The standalone server: how uvicorn runs the gateway.

A program: imports everything, and nothing imports it but the command line.
"""
