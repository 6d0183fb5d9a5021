"""TokenLab: one endpoint for every model, answered at once or by a task under ``/v1/tasks/{id}``."""

from __future__ import annotations

from imagegate.adapter import OpenAIAdapter


class TokenLab(OpenAIAdapter):
    """docs.tokenlab.sh, "Create image"; which models are tasks is decided per request by TokenLab."""

    name = "tokenlab"
    base_url = "https://api.tokenlab.sh"
    cancels_tasks = True
    """"Cancel task": queued ones only."""
