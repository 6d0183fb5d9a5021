"""Providers' replies while they arrive: JSON with base64, event streams, and the sinks for their pictures.

Used by the upstream client and by delivery.
"""
