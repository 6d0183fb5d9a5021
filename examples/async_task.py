"""A picture as a task: ask for it, go away, come back. Any HTTP client will do; so will any provider.

The Idempotency-Key makes one task of it however often this is run, as long as the gateway keeps answers.

Run:  python async_task.py http://127.0.0.1:8000 "A lighthouse at dusk"
"""

import os
import sys
import time
from typing import Any

import httpx


def picture(gateway: str, prompt: str, *, model: str = "gpt-image-1.5", key: str | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {os.environ.get('CLIENT_KEY', 'none')}"}
    with httpx.Client(base_url=gateway, headers=headers, timeout=60) as client:
        asked = {"model": model, "prompt": prompt, "async": True}
        created = client.post("/v1/images/generations", json=asked, headers={"Idempotency-Key": key} if key else {})
        created.raise_for_status()
        while True:
            reply = client.get(created.headers["location"])
            reply.raise_for_status()
            task: dict[str, Any] = reply.json()
            if task["status"] in ("completed", "failed"):
                return task
            print(task["status"], task.get("progress", ""))
            time.sleep(int(reply.headers["retry-after"]))


if __name__ == "__main__":
    found = picture(*sys.argv[1:3])
    print(found["data"][0]["url"] if found["data"] else found["error"]["message"])
