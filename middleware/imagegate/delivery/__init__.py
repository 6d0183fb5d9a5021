"""Delivers pictures in the form that the client asked for.

Used by the layer Deliver and by tasks; serves stored pictures under ``/images/``.
"""
