"""Hosted providers written a second time from their published contracts alone, without the adapters in view."""
