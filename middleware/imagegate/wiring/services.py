"""What the layers of one gateway share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp

from imagegate.access.authenticator import Authenticator
from imagegate.asgi.background import Background
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.config.network import Clients
from imagegate.config.price_table import PriceTable
from imagegate.config.schema import Config
from imagegate.delivery.images_endpoint import PictureService
from imagegate.delivery.reference_publisher import ReferenceConverter
from imagegate.idempotency.base import ReplayStore
from imagegate.idempotency.coalescing import KeyedCalls
from imagegate.moderation.inspector import Inspector
from imagegate.moderation.moderator import Moderator
from imagegate.routing.catalog import Catalog
from imagegate.routing.limiter import UpstreamLimiter
from imagegate.routing.shared_limits import SharedLimits
from imagegate.spending.service import Spending
from imagegate.stores.sweeping import Sweeper
from imagegate.tasks.manager import TaskManager
from imagegate.telemetry.capture import Capture
from imagegate.telemetry.console import Console
from imagegate.telemetry.hooks import Hooks
from imagegate.upstream.account import Account
from imagegate.wiring.lasting import Lasting


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the layers of one gateway share, whichever event loop it runs in."""

    config: Config
    lasting: Lasting
    clients: Clients
    catalog: Catalog
    images: PictureService
    moderator: Moderator | None
    """The application's hooks; None: it has none."""
    inspector: Inspector | None
    """Shows images to one of them; None: there is none for images."""
    access: Authenticator | None
    """Authenticates requests; None: the gateway is open to every client that reaches it."""
    has_source: bool
    """Whether principals may come from elsewhere than the configuration."""
    guard: BrowserGuard | None
    console: Console | None
    console_app: ASGIApp | None
    """Answers below the path of the console: the console, or a refusal; None: the application behind the gateway."""
    hooks: Hooks
    capture: Callable[[], Capture] | None
    """Makes what records the bodies of an exchange; None: they are not recorded."""
    limiters: Mapping[str, UpstreamLimiter]
    prices: PriceTable

    def enter_loop(self) -> None:
        """Leave an event loop that has ended behind: what waited there holds nothing up."""
        for limiter in self.limiters.values():
            limiter.enter_loop()
        if self.console is not None:
            self.console.enter_loop()
        if self.access is not None:
            self.access.enter_loop()

    async def aclose(self) -> None:
        """Close stores and connections."""
        await self.lasting.blobs.aclose()
        await self.clients.aclose()
        await self.images.aclose()
        if self.access is not None:
            self.access.close()


@dataclass(frozen=True, kw_only=True)
class LoopServices:
    """Services whose locks, tasks and connections belong to one event loop."""

    background: Background
    accounts: Mapping[str, Account]
    references: ReferenceConverter
    tasks: TaskManager
    replays: ReplayStore
    calls: KeyedCalls
    sweeper: Sweeper
    shared_limits: SharedLimits | None
    """Of upstreams, in Redis; None: they are this process's own."""
    spending: Spending | None
    """Limits and budgets; None: nothing can have any."""

    def start(self) -> None:
        """Start what runs without a request. Requires a running event loop."""
        self.tasks.start()
        self.calls.start()
        self.sweeper.start()
        if self.spending is not None:
            self.spending.start()
        if self.shared_limits is not None:
            self.shared_limits.start()

    async def aclose(self) -> None:
        """Close them, after `background` has finished."""
        await self.sweeper.aclose()
        await self.calls.aclose()
        await self.tasks.aclose()
        if self.spending is not None:
            await self.spending.aclose()
        if self.shared_limits is not None:
            await self.shared_limits.aclose()
