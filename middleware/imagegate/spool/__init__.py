"""Spools uploaded files: in memory as far as the budget allows, else in temporary files.

An edge: the only package that writes temporary files.
"""
