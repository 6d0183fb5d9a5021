"""The OpenAPI document of the gateway's own endpoints, and what shows it.

`merge` adds the gateway's paths to the document of a FastAPI application.
"""

from imagegate.openapi.merging import merge

__all__ = ["merge"]
