"""Strict servers in place of real ones, written from each server's contract and source and not from the adapters.

They refuse what the real server refuses, with its status and its body; what it drops in silence they drop too, and note
the field's name in ``app.state.dropped``. Those of Gemini and ComfyUI are the demo's.
"""
