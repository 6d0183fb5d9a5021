"""Tasks: requests with ``async: true``, their ids, and where they are kept."""
