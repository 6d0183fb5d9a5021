"""The smallest picture, for tests in which any will do."""

from __future__ import annotations

import base64
from typing import Final

from imagegate.testing import png

ONE_PIXEL: Final = base64.b64encode(png(1, 1)).decode()
"""A PNG as base64."""
