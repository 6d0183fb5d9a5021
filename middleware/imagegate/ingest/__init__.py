"""Reads requests: JSON bodies, forms, and forms whose files are forwarded while they arrive.

Used by the layer Read, and by layers that stand alone.
"""
