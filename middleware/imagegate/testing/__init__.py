"""For tests of adapters and of services that mount the gateway: everything here is public and documented.

Used by the project's own tests, and by third parties; nothing in the gateway imports it.
"""

from imagegate.testing.fake_upstream import Answer, FakeUpstream, Lost, Seen

__all__ = ["Answer", "FakeUpstream", "Lost", "Seen"]
