"""Run one of `apps.py` under uvicorn as it comes: the same server, HTTP parser and event loop for each.

python benchmarks/serve.py alone|mounted|aiohttp|httpx PORT WORKERS UPSTREAM_OR_CONFIG
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvicorn
from apps import APPS, UPSTREAM_VARIABLE, use_config


def main() -> None:
    _, kind, port, workers, given = sys.argv
    if kind in {"alone", "mounted"}:
        use_config(Path(given))
        if int(workers) > 1:
            # As `imagegate serve --workers` does, and as prometheus_client asks of any application with processes.
            metrics = Path(given).with_name("metrics")
            metrics.mkdir(exist_ok=True)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    else:
        os.environ[UPSTREAM_VARIABLE] = given
    uvicorn.run(
        f"apps:{APPS[kind].__name__}",
        factory=True,
        app_dir=str(Path(__file__).parent),
        port=int(port),
        workers=int(workers),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
        backlog=4096,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
