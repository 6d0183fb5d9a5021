"""What a gateway of its own says when it starts."""

from __future__ import annotations

from imagegate import __version__
from imagegate.config.schema import Config
from imagegate.logger import get_logger


def announce(config: Config, *, host: str, port: int) -> None:
    """Log what is on: version, address, upstreams, routes, store, and the console where there is one."""
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    is_on = not config.access.is_open if config.console.enabled is None else config.console.enabled
    get_logger().info(
        "imagegate starts",
        version=__version__,
        address=f"{address}{config.prefix}",
        upstreams=[upstream.name for upstream in config.upstreams],
        routes=len(config.routes),
        keys=len(config.access.keys),
        access=[name for name in ("store", "callable") if getattr(config.access, name)],
        store=config.delivery.store,
        tasks=config.tasks.store.partition("://")[0],
        console=f"{address}/console" if is_on else "off",
    )
