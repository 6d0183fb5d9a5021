"""Every block of code in README and the pages is good: TOML as configuration, Python compiled, JSON parsed."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagegate import Config, load_contracts
from imagegate.cli.commands import _parser
from imagegate.config.loader import parse_config
from imagegate.contracts.documents import read_document

ROOT = Path(__file__).parent.parent
SECRET = "0123456789abcdef"
UPSTREAM = '[[upstreams]]\nname = "openai"\napi_key = "key"\n'


def blocks(*languages: str) -> Iterator[Any]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text("utf-8")
        for found in re.finditer(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
            if found[2] in languages:
                line = text[: found.start()].count("\n") + 1
                content = re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
                yield pytest.param(content, id=f"{page.relative_to(ROOT).as_posix()}:{line}")


class Filled(dict[str, str]):
    """An environment in which every variable is set."""

    def __missing__(self, name: str) -> str:
        return SECRET

    def get(self, name: str, default: Any = None) -> str:
        return SECRET

    def __contains__(self, name: object) -> bool:
        return True


def workflow(source: str) -> dict[str, Any]:
    """A workflow of ComfyUI with the nodes and inputs that a block names, as its reader would export one."""
    nodes: dict[str, Any] = {"99": {"class_type": "SaveImage", "inputs": {}}}
    for node, name in re.findall(r'"(\d+)\.(\w+)"', source):
        nodes.setdefault(node, {"class_type": "Node", "inputs": {}})["inputs"][name] = ""
    return nodes


def completed(source: str, document: dict[str, Any]) -> str:
    """The block, with what the page leaves to the reader: upstreams that other blocks show."""
    shown = document.get("upstreams", [])
    if isinstance(shown, dict):  # tables of an upstream that stands above
        return f"{UPSTREAM}\n{source}"
    names = {each["name"] for each in shown}
    routed = {str(to).partition("/")[0] for route in document.get("routes", {}).values() for to in route if "/" in to}
    missing = sorted(routed - names) or ([] if names else ["openai"])
    tables = "".join(f'\n[[upstreams]]\nname = "{name}"\napi_key = "key"\n' for name in missing)
    return source + tables


def has_own_adapter(source: str) -> bool:
    """Whether a block names the adapter that the quickstart makes; tests/test_quickstart.py runs it."""
    upstreams = tomllib.loads(source).get("upstreams", [])
    return "painter" in [each["name"] for each in upstreams if isinstance(each, dict)]


@pytest.mark.parametrize("source", [block for block in blocks("toml") if not has_own_adapter(str(block.values[0]))])
def test_toml(source: str, tmp_path: Path) -> None:
    """A block of tables of the configuration is one that the gateway takes; others are contracts or projects."""
    document = tomllib.loads(source)
    if set(document) == {"models"}:
        assert load_contracts(read_document(source))
    elif set(document) <= set(Config.__struct_fields__):
        for name in re.findall(r'"([\w-]+\.json)"', source):
            (tmp_path / name).write_text(json.dumps(workflow(source)))
        (tmp_path / "more-models.toml").write_text('[models."my-model"]\nfamily = "gpt-image-2"\n')
        assert parse_config(completed(source, document), environment=Filled(), directory=tmp_path).upstreams


@pytest.mark.parametrize("source", list(blocks("python")))
def test_python(source: str) -> None:
    """Python parses; an example may await at its top."""
    compile(source, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("source", list(blocks("json")))
def test_json(source: str) -> None:
    assert json.loads(source)


@pytest.mark.parametrize("source", list(blocks("sh")))
def test_command_lines(source: str) -> None:
    """Every call of the program in a block for the shell is one that it takes."""
    for line in source.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removesuffix("&"), comments=True)
        if words[:1] == ["imagegate"]:
            _parser().parse_args(words[1 : words.index("|") if "|" in words else None])
