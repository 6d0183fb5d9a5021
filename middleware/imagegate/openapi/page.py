"""A page that shows the document: plain HTML, without scripts and without anything from elsewhere. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
h2 { border-top: 1px solid; padding-top: 1rem; font-size: 1.1rem }
h2 b { display: inline-block; min-width: 4.5rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #8884 }
code { font-size: .95em }
"""
_CODE: Final = re.compile(r"`([^`]+)`")


def page(document: Mapping[str, Any], *, source: str) -> str:
    """Return the page.

    Args:
        document: an OpenAPI document.
        source: relative link to it.
    """
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escape(title)}</h1><p>{_text(info['description'])}</p>",
            f'<p><a href="{escape(source)}">OpenAPI document</a></p>',
            *_operations(document),
            "</main></body></html>",
        )
    )


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "head":
                continue
            yield f'<section id="{operation["operationId"]}">'
            yield f"<h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
            yield f"<p>{_text(operation['summary'])}. {_text(operation.get('description', ''))}</p>"
            yield from _parameters(operation.get("parameters", ()))
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                yield from _body(kind, schemas[body["schema"]["$ref"].rpartition("/")[2]])
            yield from _responses(operation["responses"])
            yield "</section>"


def _parameters(parameters: Any) -> Iterator[str]:
    rows = [(f"{each['name']} ({each['in']})", each["schema"], each.get("description", "")) for each in parameters]
    if rows:
        yield from _table("Parameters", rows)


def _body(kind: str, schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    rows = [
        (f"{name} (required)" if name in required else name, each, each.get("description", ""))
        for name, each in schema["properties"].items()
    ]
    yield f"<details><summary>Body: <code>{escape(kind)}</code></summary>"
    yield from _table("", rows)
    yield f"<p>{_text(schema['description'])}</p></details>"


def _table(title: str, rows: list[tuple[str, Any, str]]) -> Iterator[str]:
    yield f"<h3>{title}</h3><table>" if title else "<table>"
    for name, schema, description in rows:
        cells = (f"<code>{escape(name)}</code>", escape(_kind(schema)), _text(description))
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table>"


def _responses(responses: Mapping[str, Any]) -> Iterator[str]:
    yield "<details><summary>Responses</summary><table>"
    for status, response in responses.items():
        names = ", ".join(f"<code>{escape(name)}</code>" for name in response.get("headers", ()))
        yield f"<tr><td>{status}</td><td>{_text(response['description'])}</td><td>{names}</td></tr>"
    yield "</table></details>"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return what a value may be, in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join("null" if value is None else str(value) for value in schema["enum"])
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _text(text: str) -> str:
    """Return text as HTML, with code in backticks and line breaks."""
    return _CODE.sub(r"<code>\1</code>", escape(text)).replace("\n", "<br>")
