"""What a process that is ours tells Python's garbage collector."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CODE = """
import gc, json
before = gc.get_threshold()
from imagegate.server.run import create_app
create_app()
print(json.dumps([before, gc.get_threshold(), gc.get_freeze_count()]))
"""


@pytest.mark.server
def test_full_collections_are_put_off_and_young_ones_are_not() -> None:
    environment = {**os.environ, "OPENAI_API_KEY": "any"}
    said = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    before, after, frozen = json.loads(said.stdout)
    assert after[0] == before[0]
    assert after[1:] > before[1:]
    assert frozen > 10_000
