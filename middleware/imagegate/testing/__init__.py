"""For tests of adapters and of services that mount the gateway: everything here is public and documented.

Used by the project's own tests, and by third parties; nothing in the gateway imports it.
"""

from imagegate.testing.adapter_contract import AdapterContract, Fixture, check_fixture
from imagegate.testing.asgi_lint import Lint, LintError
from imagegate.testing.fake_upstream import Answer, FakeUpstream, Lost, Seen
from imagegate.testing.files import MemoryFile, png
from imagegate.testing.offline import offline
from imagegate.testing.outbound import outbound, rendered

__all__ = [
    "AdapterContract",
    "Answer",
    "FakeUpstream",
    "Fixture",
    "Lint",
    "LintError",
    "Lost",
    "MemoryFile",
    "Seen",
    "check_fixture",
    "offline",
    "outbound",
    "png",
    "rendered",
]
