"""Tasks: requests with ``async: true``, their ids, and where they are kept.

Used by the layers Tasks and TaskEndpoints; what runs a task sees it as a request like any other.
"""
