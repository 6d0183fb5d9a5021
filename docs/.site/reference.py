"""Writes the pages of the reference that are made from the code. `make pages` runs it; tests compare what it makes.

A settings' page from the structs of the configuration, error codes from what the code raises, metrics from their
definitions, and commands from the parser.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from imagegate.cli.commands import main as run_command
from imagegate.config.schema import Config, Duration
from imagegate.errors import ImagegateError
from imagegate.telemetry.metric_definitions import METRICS

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs" / "reference"
MADE = "<!-- Made by `make pages` from the code. -->\n"


# Settings


def settings() -> str:
    """Return the page of all settings: a table for each struct, with key, type, default and docstring."""
    parts = [
        "# All settings\n",
        MADE,
        (
            "Every table and key that a configuration file may have, made from the code. An annotated file is in\n"
            '[Configuration](configuration.md). Times are numbers of seconds or texts such as `"300s"`, `"24h"` and\n'
            '`"50ms"`; `"${NAME}"` takes a value from the environment.\n'
        ),
    ]
    shown: dict[Any, str] = {}
    for path, struct in _structs(Config, ""):
        parts.append(f"## {path or 'Top level'}\n")
        if struct in shown:
            parts.append(f"The same keys as {shown[struct]}.\n")
            continue
        shown[struct] = f"[{path.strip('[]')}](#{_anchor(path)})"
        text = _prose(inspect.getdoc(struct) or "")
        text = re.sub(r" \(`\[[^)]*\]`\)", "", text)
        parts.append(f"{text}\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|")
        notes, hints = _docstrings(struct), typing.get_type_hints(struct)
        for field in msgspec.structs.fields(struct):
            default = _default(field, hints[field.name])
            meaning = _prose(notes.get(field.name, ""))
            if not meaning and _is_struct(hints[field.name]):
                name = f"{path.strip('[]')}.{field.encode_name}".lstrip(".")
                meaning = f"See [{name}](#{_anchor(name)})."
            parts.append(f"| `{field.encode_name}` | {_type(hints[field.name])} | {default} | {meaning} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _structs(struct: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, struct
    hints = typing.get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        inner = next((each for each in (hint, *_parts(hint)) if _is_struct(each)), None)
        if inner is None:
            continue
        origin = typing.get_origin(hint)
        is_named = origin is not None and isinstance(origin, type) and issubclass(origin, Mapping)
        name = f"{path.strip('[]')}.{field.encode_name}".lstrip(".")
        shown = f"[[{name}]]" if origin is tuple else f"[{name}.NAME]" if is_named else f"[{name}]"
        yield from _structs(inner, shown)


def _anchor(path: str) -> str:
    return re.sub(r"[^\w-]", "", path).lower()


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _parts(hint: Any) -> Iterator[Any]:
    for part in typing.get_args(hint):
        yield part
        yield from _parts(part)


def _docstrings(struct: type) -> dict[str, str]:
    """Return the docstring below each member of a class, and of those that it stands on."""
    bases = (base for base in struct.__bases__ if _is_struct(base) and base is not msgspec.Struct)
    inherited = {name: text for base in bases for name, text in _docstrings(base).items()}
    (body,) = (node.body for node in ast.parse(inspect.getsource(struct)).body if isinstance(node, ast.ClassDef))
    return inherited | {
        ast.unparse(before.target): inspect.cleandoc(str(after.value.value))
        for before, after in pairwise(body)
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }


def _prose(text: str) -> str:
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


_WORDS: Mapping[Any, str] = {
    str: "text",
    bool: "boolean",
    int: "integer",
    float: "number",
    Duration: "time",
    Any: "anything",
}


def _type(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f'`"{word}"`' for word in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in arguments if each is not type(None)))
    if origin is tuple:
        return "tables" if _is_struct(arguments[0]) else f"list of {_type(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"table: name to {_type(arguments[1])}"
    return "table"


def _default(field: Any, hint: Any) -> str:
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None or value == "" or isinstance(value, msgspec.Struct):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if hint is Duration or isinstance(value, Duration):
        return f"`{value:g}` s"
    if isinstance(value, int) and value >= 1024**2 and value % 1024 == 0:
        size, unit = (value // 1024**3, "GiB") if value % 1024**3 == 0 else (value // 1024**2, "MiB")
        return f"`{value}` ({size} {unit})"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, (tuple, list)):
        return "`[]`" if not value else f"`{list(value)}`"
    return "`{}`" if isinstance(value, Mapping) else f"`{value}`"


# Errors


class Raised(NamedTuple):
    """A code, the status that it has where it is raised, and whether the official SDKs ask again; None: unknown."""

    code: str
    status: int | None
    retried: bool | None


_RETRIED = frozenset({408, 409, 429})


def raised() -> list[Raised]:
    """Every error code in the source that a client can see."""
    found: set[Raised] = set()
    folders = ((ROOT / "middleware", "imagegate"), (ROOT / "adapters", "imagegate_adapters"))
    for folder, package in folders:
        for file in sorted((folder / package).rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            if {"demo", "testing", "migrations", "cli", "__main__"}.isdisjoint(parts):
                found.update(_raised_in(file, ".".join(parts).removesuffix(".__init__")))
    return sorted(found, key=str)


def _raised_in(file: Path, name: str) -> Iterator[Raised]:
    text = file.read_text("utf-8")
    if "code" not in text:
        return
    names = vars(importlib.import_module(name))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            yield from _raised_by_class(names.get(node.name))
        elif isinstance(node, ast.Call):
            yield from _raised_by_call(node, names)
        elif isinstance(node, ast.Assign):
            yield from (Raised(code, None, None) for code in _assigned(node, names))


def _raised_by_class(kind: Any) -> Iterator[Raised]:
    if isinstance(kind, type) and issubclass(kind, ImagegateError) and isinstance(kind.code, str):
        yield Raised(kind.code, kind.status, _is_retried(kind, kind.status))


def _is_retried(kind: type[ImagegateError], status: int) -> bool | None:
    made: ImagegateError | None = None
    for arguments in (("",), ()):
        with contextlib.suppress(AttributeError, TypeError):  # some take other arguments
            made = made or kind(*arguments)
    if made is None:
        return None
    return (status in _RETRIED or status >= 500) and (b"x-should-retry", b"false") not in made.headers


def _raised_by_call(node: ast.Call, names: Mapping[str, Any]) -> Iterator[Raised]:
    given = {word.arg: word.value for word in node.keywords if word.arg}
    if "code" not in given:
        return
    kind = names.get(node.func.id) if isinstance(node.func, ast.Name) else None
    is_error = isinstance(kind, type) and issubclass(kind, ImagegateError)
    status: int | None = kind.status if is_error else None
    if "status" in given:
        value = given["status"]
        status = value.value if isinstance(value, ast.Constant) else None
    for code in _texts(given["code"], names):
        yield Raised(code, status, _is_retried(kind, status) if is_error and status else None)


def _assigned(node: ast.Assign, names: Mapping[str, Any]) -> Iterator[str]:
    """Codes that are set on an error, or stand in a table of them."""
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=True))
        for to, value in pairs:
            if isinstance(to, ast.Attribute) and to.attr == "code":
                yield from _texts(value, names)


def _texts(node: ast.expr, names: Mapping[str, Any]) -> Iterator[str]:
    """Return the texts that an expression may have as its value, as far as they stand in the source."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name) and isinstance(names.get(node.id), str):
        yield names[node.id]
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, names)
        yield from _texts(node.orelse, names)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _texts(value, names)
    elif isinstance(node, ast.JoinedStr) and "".join(_literal(part) for part in node.values).endswith("_value"):
        yield from (kind + "".join(_literal(part) for part in node.values) for kind in ("integer", "decimal"))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        table = names.get(node.func.value.id) if isinstance(node.func.value, ast.Name) else None
        yield from table.values() if isinstance(table, Mapping) else ()
        yield from _texts(node.args[1], names) if len(node.args) > 1 else ()


def _literal(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else ""


def meanings() -> dict[str, dict[str, Any]]:
    """Return what each code means, in our words."""
    return tomllib.loads((Path(__file__).parent / "error_codes.toml").read_text("utf-8"))


def errors() -> str:
    """Return the page of error codes. Raises `KeyError` for a code without a meaning."""
    text, found = meanings(), raised()
    rows = []
    for code in sorted({each.code for each in found}):
        known, here = text[code], [each for each in found if each.code == code]
        statuses = sorted({each.status for each in here if each.status} | set(known.get("status", ())))
        retried = {each.retried for each in here} - {None}
        if not retried:
            retried = {status in _RETRIED or status >= 500 for status in statuses}
        again = known.get("retried") or {frozenset({True}): "yes", frozenset({False}): "no"}.get(
            frozenset(retried), "by status"
        )
        rows.append(f"| `{code}` | {', '.join(map(str, statuses))} | {known['meaning']} | {again} |")
    head = (Path(__file__).parent / "errors.in").read_text("utf-8")
    table = "| code | status | meaning | the official SDKs ask again |\n|---|---|---|---|\n" + "\n".join(rows)
    return head.replace("<!-- codes -->", MADE + "\n" + table)


# Metrics and commands


def metrics() -> str:
    """Return the page of metrics."""
    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels) or '–'} | {each.help} |"
        for each in METRICS.values()
    ]
    head = (Path(__file__).parent / "metrics.in").read_text("utf-8")
    table = "| metric | kind | labels | meaning |\n|---|---|---|---|\n" + "\n".join(rows)
    return head.replace("<!-- metrics -->", MADE + "\n" + table)


def commands() -> str:
    """Return the page of commands: the existing table, and below it what each command says of itself."""
    head = (REFERENCE / "cli.md").read_text("utf-8").partition("\n## Options\n")[0].rstrip("\n")
    parts = [head, "\n## Options\n", MADE]
    parts += [f"### imagegate {' '.join(words)}\n\n```text\n{_help(words)}```\n" for words in _commands(())]
    return "\n".join(parts)


def _commands(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    names = re.findall(
        r"^    ([a-z]+)(?: {2,}|\n)",
        re.split("^  (?:COMMAND|ACTION)\n", _help(words), maxsplit=1, flags=re.MULTILINE)[-1],
        re.MULTILINE,
    )
    if not names:
        yield words
    for name in names:
        yield from _commands((*words, name))


def _help(words: tuple[str, ...]) -> str:
    text = io.StringIO()
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "100"
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            run_command([*words, "--help"])
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return text.getvalue()


PAGES = {"settings.md": settings, "errors.md": errors, "metrics.md": metrics, "cli.md": commands}

if __name__ == "__main__":
    for page, made in PAGES.items():
        (REFERENCE / page).write_text(made(), "utf-8")
