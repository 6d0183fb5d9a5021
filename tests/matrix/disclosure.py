"""What a request asks for against what goes out: what differs and is not disclosed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from tests.matrix.asked import LINK, PROMPT, File
from tests.matrix.explained import Cell

from imagegate.contract import Contract
from imagegate.contracts.changes import Change, header_value
from imagegate.contracts.contract import find_contract
from imagegate.registry import load_adapter
from imagegate.testing.outbound import contracts_of

_PIXELS: Final = re.compile(r"([0-9]+)x([0-9]+)")
_UUID: Final = re.compile(r"[0-9a-f-]{36}")


class _Leaf(NamedTuple):
    """A value of the body that goes out."""

    path: str
    """Names, joined by dots; places in lists are left out."""
    text: str
    """JSON's word for it, so that a form's ``4`` is a number's; a file's SHA-256."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2].removesuffix("[]")


def unlike_header(cell: Cell) -> str:
    """Return what `Imagegate-Changes` should say by the changes in the explanation; empty: it does."""
    listed = [Change(each["field"], each["kind"], each.get("from"), each.get("to")) for each in cell.changes]
    wanted = header_value(listed)
    return "" if wanted == cell.header else wanted


def undisclosed(cell: Cell, plain: Cell) -> list[str]:
    """Return what the client asked for that does not go out, and what goes out that it did not ask for.

    Args:
        plain: the same with nothing asked for: what stands there is how this provider is asked for anything.
    """
    changed = _changed(cell)
    leaves = _sent(cell)
    texts = {leaf.text for leaf in leaves}
    allowed = {*_disclosed(cell)}
    found = [] if PROMPT in texts or "prompt" in changed else ["the prompt does not go out"]
    for name, value in cell.asked.fields.items():
        if name in changed or name == "images":
            continue
        spellings = [*_spellings(value)]
        allowed.update(word for words in spellings for word in words)
        if not any(words <= texts for words in spellings) and not _is_only_value(cell, name, value):
            found.append(f"{name} {value!r} does not go out")
    found += _lost_references(cell, leaves, changed)
    known = _sent(plain)
    shown = {(leaf.name, leaf.text) for leaf in known}
    found += [
        f"{leaf.path} {leaf.text!r} is not asked for"
        for leaf in leaves
        if (leaf.name, leaf.text) not in shown and not _is_explained(leaf, cell, allowed)
    ]
    own = {*_disclosed(plain)}  # what is added there need not be here
    gone = {leaf.name for leaf in known if not _is_explained(leaf, plain, own)} - {leaf.name for leaf in leaves}
    return found + [f"{name} does not go out" for name in sorted(gone - _of_references(known))]


def always_sent(plain: Cell) -> list[str]:
    """Return what stands in every such request to this provider, though nothing asks for it, as ``member: value``."""
    own = {*_disclosed(plain)}
    return sorted({f"{leaf.path}: {leaf.text}" for leaf in _sent(plain) if not _is_explained(leaf, plain, own)})


def _changed(cell: Cell) -> set[str]:
    """Return the members whose value is not the client's; one that has another name only must have its value there."""
    changed = {each["field"].partition(".")[0] for each in cell.changes}
    renamed = {each["field"]: each["to"] for each in cell.changes if each["kind"] == "renamed"}
    return changed - {name for name, own in renamed.items() if name not in ("image", "images") and own not in changed}


def _disclosed(cell: Cell) -> Iterator[str]:
    """Yield what every request asks for, and the values that the changes disclose, in every spelling."""
    yield from (PROMPT, cell.model, LINK)
    own = _contract(cell)
    if own is not None and own.body is not None:  # how a size is spelled there
        yield from map(_text, own.body.with_size.values())
    for change in cell.changes:
        if change.get("to") is None:
            continue
        whole = _text(change["to"])
        if change["field"] in ("n", "seed"):  # in parts
            yield whole.partition("+")[0]
        for word in (whole, *whole.split(",")):
            for words in _spellings(word.partition("=")[2] or word):
                yield from words


def _is_explained(leaf: _Leaf, cell: Cell, allowed: set[str]) -> bool:
    if leaf.text in allowed or (_is_reference(leaf) and _is_of_request(leaf, cell)):
        return True
    if any(change["field"] == leaf.name and change.get("to") == "random" for change in cell.changes):
        return True
    if leaf.text in ("image/*", "image/png"):  # explaining fetches no link
        return bool(cell.asked.files) or "images" in cell.asked.fields
    return load_adapter(cell.adapter).names_jobs and _UUID.fullmatch(leaf.text) is not None


def _is_of_request(leaf: _Leaf, cell: Cell) -> bool:
    if any(change["field"] == "mask" for change in cell.changes):  # drawn anew
        return True
    return any(name in leaf.text for name in (LINK, *_digests(cell)))


def _is_only_value(cell: Cell, name: str, value: Any) -> bool:
    """Return whether a model has nothing else, so that the value need not go out to be kept to."""
    own = _contract(cell)
    parameter = own.parameters.get(name) if own else None
    return parameter is not None and parameter.values == (value,)


def _contract(cell: Cell) -> Contract | None:
    contract = find_contract(_contracts(cell.adapter), cell.model)
    return contract.by_operation[cell.asked.operation] if contract else None


@cache
def _contracts(adapter: str) -> Mapping[str, Contract]:
    return contracts_of(load_adapter(adapter))


def _lost_references(cell: Cell, leaves: Sequence[_Leaf], changed: set[str]) -> Iterator[str]:
    wanted = [sha(file) for file in cell.asked.files if file.part != "mask"]
    if "images" in cell.asked.fields:
        wanted.append(LINK)
    if [name for leaf in leaves for name in wanted if name in leaf.text] != wanted:
        yield f"{len(wanted)} references do not go out in order"
    for mask in (file for file in cell.asked.files if file.part == "mask"):
        others = [leaf for leaf in leaves if _is_reference(leaf) and not any(name in leaf.text for name in wanted)]
        if len(others) != 1 or ("mask" not in changed and sha(mask) not in others[0].text):
            yield "the mask does not go out"


def _is_reference(leaf: _Leaf) -> bool:
    return LINK in leaf.text or re.search(r"\b[0-9a-f]{64}\b", leaf.text) is not None


def _of_references(leaves: Sequence[_Leaf]) -> set[str]:
    """Return the names beside references, which have others where there are more."""
    places = {leaf.path.rpartition(".")[0] for leaf in leaves if _is_reference(leaf)}
    return {leaf.name for leaf in leaves if leaf.path.rpartition(".")[0] in places - {""}}


def sha(file: File) -> str:
    return hashlib.sha256(file.content).hexdigest()


def _digests(cell: Cell) -> Iterator[str]:
    return map(sha, cell.asked.files)


def _spellings(value: Any) -> Iterator[set[str]]:
    """Yield the words of which a provider may make a value: ``1536*1024``, or an edge each."""
    text = _text(value)
    yield {text}
    yield {f"image/{text}"}
    if pixels := _PIXELS.fullmatch(text):
        width, height = pixels.groups()
        yield {f"{width}*{height}"}
        yield {width, height}


def _sent(cell: Cell) -> list[_Leaf]:
    """Return every value of the body, and the type of picture that is accepted."""
    accept = cell.document["headers"].get("accept", "")
    accepted = [_Leaf("accept", accept)] if accept.startswith("image/") else []
    return [*_leaves(cell.document["body"]), *accepted]


def _leaves(node: Any, path: str = "") -> Iterator[_Leaf]:
    if isinstance(node, Mapping):
        if "sha256" in node or "fetched_from" in node:
            yield _Leaf(path or node.get("name", ""), node.get("sha256") or node["fetched_from"])
        elif {*node} == {"name", "value"}:  # of a form
            yield from _leaves(node["value"], node["name"])
        else:
            for name, value in node.items():
                yield from _leaves(value, f"{path}.{name}".lstrip("."))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, path)
    elif isinstance(node, str) and PROMPT in node and node != PROMPT:
        yield _Leaf(path, PROMPT)
        rest = node.replace(PROMPT, "").strip("| ")
        _, start, inner = rest.partition("{")
        yield from _leaves(json.loads(start + inner.rpartition("}")[0] + "}") if start else rest, path)
    elif node is not None:
        yield _Leaf(path, _text(node))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
