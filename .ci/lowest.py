"""Prints the lowest version of each runtime dependency that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

RUNTIME_EXTRAS = ("cloud", "keys", "masks", "otel", "otlp", "postgres", "redis", "server", "socks")
_BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9][^,;\s]*)")

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
for requirement in (*project["dependencies"], *(each for extra in RUNTIME_EXTRAS for each in extras[extra])):
    if bound := _BOUND.match(requirement):
        print(f"{bound[1]}=={bound[2]}")
