"""Finds what an error says, in whichever of the field's many shapes it comes. Pure.

Nothing is known of the shape but how members are usually named: sentences in ``message``, ``msg``, ``detail``,
``error_description`` and the like, at any depth of the members that usually hold an error, in arrays, or as JSON that
is itself printed into a text. The sentence that says most wins; a page or a printed structure is no sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from imagegate.protocol.parsers.lenient_json import read_value

_SENTENCES: Final = (
    *("message", "msg", "errormessage", "errormsg", "errmsg", "statusmsg", "statusmessage", "failreason"),
    *("failurereason", "failmsg", "faultstring", "errordescription", "description", "detail", "details", "reason"),
    *("cause", "exception", "raw", "error", "errors", "err", "info", "title"),
)
"""Members that hold a sentence, lower case and without ``_`` and ``-``; of equals the first one wins."""
_INSIDE: Final = frozenset(
    [
        *("message", "msg", "error", "errors", "err", "detail", "details", "innererror", "cause", "exception", "fault"),
        *("failure", "status", "baseresp", "response", "responsemetadata", "metadata", "body", "raw", "output", "data"),
        *("result", "upstreamerror", "providererror", "originalerror", "header", "extensions", "fieldviolations"),
    ]
)
"""Members in which an error may be nested."""
_CODES: Final = ("code", "errorcode", "errcode", "errno", "statuscode", "status", "errortype", "name", "title")
_WORDS_ONLY: Final = frozenset({"status", "errortype", "name", "title"})
"""Members of these that may hold a sentence, or the state of a task."""
_STATES: Final = re.compile(
    r"fail(ed|ure)?|error|cancell?ed|rejected|expired|timeout|unknown|completed?|done|finished|ready", re.IGNORECASE
)
_NUMBERS_OF_HTTP: Final = frozenset({"status", "statuscode"})
"""Members whose number is the reply's status rather than a reason."""
_PLACES: Final = (["body"], ["query"], ["path"], ["header"], ["cookie"])
"""Each a ``loc`` of FastAPI that names no field."""
_FLAGS: Final = frozenset({"error", "errors", "err", "fault", "failreason", "detail"})
"""Members that say by being there that something is wrong."""
_NODES: Final = frozenset({"output", "data", "result", "baseresp", "response", "responsemetadata", "header"})
"""Members of a reply in which an error may stand although the reply's status is good."""
_NO_ERROR: Final = re.compile(
    r"0*|200|1?0000|succeeded|ok(ay)?|none|null|false|(?!not )(\w+ )?success(ful|fully)?[.!]?", re.IGNORECASE
)
_HOLLOW: Final = re.compile(
    r"[\W\d]*(bad request|unauthorized|forbidden|not found|method not allowed|conflict|payload too large"
    r"|request entity too large|unsupported media type|unprocessable (entity|content)|too many requests"
    r"|internal (server )?error|bad gateway|service unavailable|gateway time-?out|payment required"
    r"|(an |the )?(unknown |upstream |provider |server )*(error|request failed)( occurred)?"
    r"|(the )?(provider|upstream)( has)? returned (an )?error|validation (failed|error)|something went wrong"
    r"|(one or more )?validation errors? occurred|(the )?request contains (an )?invalid (argument|value|parameter)s?"
    r"|(invalid|bad) (request|input|parameters?|arguments?)"
    r"|(the |your )?request (is |was )?(not valid|invalid|rejected|failed)"
    r"|((image )?generation|operation) failed|traceback .*)[\W\d]*",
    re.IGNORECASE | re.DOTALL,
)
"""Says no more than the status does."""
_WORD: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,128}", re.ASCII)
_STRUCTURE: Final = re.compile(r"""[\[{]\s*(?:[\[{]\s*)*["'][A-Za-z_@]""")
"""Where a printed structure begins in a text."""
_PRINTED: Final = re.compile(
    r"""["'](?:message|msg|detail|error_description|reason)["']\s*:\s*(["'])((?:\\.|(?!\1)[^\\])+)""", re.IGNORECASE
)
"""A sentence in a printed structure that is no JSON: cut off, or as Python prints it."""
_XML_SENTENCE: Final = re.compile(r"<(?:\w+:)?(?:message|faultstring|detail)>\s*([^<]+?)\s*</", re.IGNORECASE)
_XML_CODE: Final = re.compile(r"<(?:\w+:)?(?:code|faultcode)>\s*([\w.:-]+?)\s*</", re.IGNORECASE)
_PAGE: Final = re.compile(r"\s*<(?:!doctype html|html|head|body|center|h1|script|style|title)\b", re.IGNORECASE)
_DELAY: Final = re.compile(r"(\d{1,5}(?:\.\d{1,9})?)s", re.ASCII)
_ENOUGH: Final = 300
"""Characters of a sentence beyond which more of them say no more."""
_DEEPEST: Final = 8
_MOST_NODES: Final = 100
_MOST_TEXT: Final = 16 * 1024


class ProviderError(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's own error, in OpenAI's terms."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None
    status: int | None = None
    """The HTTP status that the document itself names."""

    @property
    def says_something(self) -> bool:
        """Whether the message is more than a word for success, or for an error."""
        return not _says_nothing(self.message) and _HOLLOW.fullmatch(self.message) is None


class _Node(msgspec.Struct, frozen=True):
    """What one object of a document says."""

    sentence: str = ""
    type: str | None = None
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None
    status: int | None = None

    @property
    def weight(self) -> tuple[bool, bool, int]:
        is_hollow = not self.sentence or _HOLLOW.fullmatch(self.sentence) is not None
        return not is_hollow, " " in self.sentence.strip(), min(len(self.sentence), _ENOUGH)


def read_error(document: Any) -> ProviderError | None:
    """Return what a document says that is known to be an error; None: nothing that can be read."""
    nodes = list(_nodes(document, _Limit()))
    if not nodes:
        return None
    best = max(nodes, key=lambda node: node.weight)  # the first of equals
    others = [best, *nodes]
    code = best.code or next((node.code for node in nodes if node.code), None)
    message = best.sentence or code or ""
    if not message:
        return None
    return ProviderError(
        message=message,
        type=next((node.type for node in others if node.type), None),
        param=next((node.param for node in others if node.param), None),
        code=code,
        retry_after=next((node.retry_after for node in others if node.retry_after is not None), None),
        status=next((node.status for node in others if node.status is not None), None),
    )


def provider_error(document: Mapping[str, Any]) -> ProviderError | None:
    """Return the error that a reply with a good status carries; None: it carries none."""
    if not _is_wrong(document):
        nested = [value for name, value in document.items() if _plain(name) in _NODES and isinstance(value, Mapping)]
        document = next(filter(_is_wrong, nested), {})
    return read_error(document) or (ProviderError(message="The provider reports no success.") if document else None)


def read_text(text: str) -> ProviderError | None:
    """Return what a body says that is no JSON; None: it is empty, or a page for people."""
    text = text[:_MOST_TEXT].lstrip("\ufeff").strip()
    if text[:1] == '"' == text[-1:]:  # a string as JSON
        text = text[1:-1].replace('\\"', '"').strip()
    if not text or _PAGE.match(text):
        return None
    if text.startswith("<"):
        found, code = _XML_SENTENCE.search(text), _XML_CODE.search(text)
        return ProviderError(message=found[1], code=code[1] if code else None) if found else None
    return next((ProviderError(message=node.sentence) for node in _of_text(text, _Limit()) if node.sentence), None)


def digest(document: Any) -> str:
    """Return a document that has no usual member as names and values, for people; empty: it says nothing."""
    texts: list[str] = []
    level: list[tuple[str, Any]] = [("", document)]
    while level and len(texts) < 20:
        name, node = level.pop(0)
        if isinstance(node, Mapping):
            level[:0] = [(str(key), value) for key, value in list(node.items())[:20]]
        elif isinstance(node, list):
            level[:0] = [(name, item) for item in node[:20]]
        elif node is not None and str(node).strip() and len(str(node)) <= _ENOUGH:
            texts.append(f"{name}: {node}" if name else str(node))
    return "; ".join(texts)[:_ENOUGH]


class _Limit:
    """How much is looked at."""

    def __init__(self) -> None:
        self._left = _MOST_NODES

    def is_reached(self, depth: int) -> bool:
        self._left -= 1
        return self._left < 0 or depth > _DEEPEST


def _nodes(value: Any, limit: _Limit, depth: int = 0) -> Iterator[_Node]:
    """Yield what a document's objects say, from the outside in."""
    if limit.is_reached(depth):
        return
    if isinstance(value, str):
        yield from _of_text(value, limit, depth)
    elif isinstance(value, list):
        yield from _of_list(value, limit, depth)
    elif isinstance(value, Mapping):
        yield from _of_object(value, limit, depth)


def _of_list(items: list[Any], limit: _Limit, depth: int) -> Iterator[_Node]:
    """Yield what the items of an array say, all of it as one."""
    said: list[_Node] = []
    for item in items[:20]:
        found = list(_nodes(item, limit, depth + 1))
        if found:
            best = max(found, key=lambda node: node.weight)
            said.append(msgspec.structs.replace(best, code=next((node.code for node in found if node.code), None)))
    if said:
        sentences = dict.fromkeys(node.sentence for node in said if node.sentence)
        first = said[0]
        param, status = _param_of(items[0]) or first.param, first.status
        code = first.code or first.type if isinstance(items[0], Mapping) else None
        delay = next((node.retry_after for node in said if node.retry_after is not None), None)
        yield _Node("; ".join(sentences), None, param, code, delay, status)


def _param_of(item: Any) -> str | None:
    """Return the last part of FastAPI's ``loc``, of RFC 9457's ``pointer`` or of Google's ``field``; None: no field."""
    if not isinstance(item, Mapping):
        return None
    location = item.get("loc")
    if isinstance(location, list):
        return str(location[-1]) if location and location not in _PLACES else None
    for name, separator in (("pointer", "/"), ("field", ".")):
        value = item.get(name)
        if isinstance(value, str) and _WORD.fullmatch(last := value.rpartition(separator)[2]):
            return last
    return None


def _of_object(node: Mapping[str, Any], limit: _Limit, depth: int) -> Iterator[_Node]:
    members = {_plain(name): value for name, value in reversed(list(node.items())[:_MOST_NODES])}
    sentences = [name for name in _SENTENCES if isinstance(members.get(name), str)]
    if "title" in sentences and "detail" in sentences and not _is_hollow(members["detail"]):
        sentences.remove("title")  # RFC 9457: of the kind of problem, where `detail` is of this one
    texts = [_of_text(members[name], limit, depth) for name in sentences]
    inner = [node for found in texts for node in found]
    own = [node for node in inner if node == _Node(node.sentence)]
    for name in [name for name in members if name in _INSIDE]:
        if isinstance(members[name], (Mapping, list)):
            inner += _nodes(members[name], limit, depth + 1)
            if name in ("errors", "message", "detail") and isinstance(members[name], Mapping):
                inner += _by_field(members[name])
    best = max(own, key=lambda node: node.weight, default=_Node())
    yield _Node(
        best.sentence,
        _text(members.get("type")),
        _text(members.get("param")),
        _code_of(members),
        _delay(members),
        _status_of(members),
    )
    yield from inner


def _is_hollow(sentence: str) -> bool:
    return not sentence.strip() or _HOLLOW.fullmatch(sentence.strip()) is not None


def _by_field(members: Mapping[str, Any]) -> Iterator[_Node]:
    """Yield what is said of each field of a request: ``{"size": ["is not valid"]}``."""
    said: list[str] = []
    for name, value in list(members.items())[:20]:
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        words = [text for text in texts if isinstance(text, str) and " " in text and not _HOLLOW.fullmatch(text)]
        if words and _plain(name) not in _SENTENCES:
            said.append(f"{name}: {', '.join(words)}")
    if said:
        yield _Node("; ".join(said), param=said[0].partition(":")[0])


def _of_text(text: str, limit: _Limit, depth: int = 0) -> Iterator[_Node]:
    """Yield what a text says: itself, or the structure that is printed in it."""
    text = text[:_MOST_TEXT].strip()
    if not text or _PAGE.match(text):
        return
    if text.startswith("<") and (found := _XML_SENTENCE.search(text)):
        text = found[1]
    structure = _STRUCTURE.search(text)
    if structure is None or limit.is_reached(depth):
        yield _Node(text)
        return
    before, printed = text[: structure.start()].strip(" \t\r\n:-,(\"'"), text[structure.start() :]
    if " " in before and printed.startswith("[") and "{" not in printed:
        yield _Node(text)  # a sentence that lists values: "must be one of ["png", "jpeg"]"
        return
    value = read_value(printed.encode("utf-8", "replace"))
    found_in = list(_nodes(value, limit, depth + 1)) if value is not None else []
    if any(node.sentence for node in found_in):
        yield from found_in
    elif (sentence := _PRINTED.search(printed)) is not None:
        yield _Node(sentence[2].replace("\\n", " ").replace('\\"', '"').replace("\\'", "'"))
    elif before:
        yield _Node(before)


def _is_wrong(node: Mapping[str, Any]) -> bool:
    members = {_plain(name): value for name, value in node.items()}
    if any(members.get(name) and not _says_nothing(members[name]) for name in _FLAGS):
        return True
    if any(members.get(name) is False for name in ("success", "ok")):
        return True
    code = _text(next((members[name] for name in ("code", *_CODES[1:4], "statuscode") if name in members), None))
    if code is not None:
        return not (_says_nothing(code) or _says_nothing(_first_sentence(members)))
    return (_status_of(members) or 0) >= 400


def _says_nothing(value: Any) -> bool:
    return isinstance(value, str) and _NO_ERROR.fullmatch(value.strip()) is not None


def _first_sentence(members: Mapping[str, Any]) -> Any:
    return next((members[name] for name in _SENTENCES if isinstance(members.get(name), str)), None)


def _code_of(members: Mapping[str, Any]) -> str | None:
    """Return the code; of Google's ``404`` and ``NOT_FOUND`` the word. A sentence is none."""
    number: str | None = None
    for name in _CODES:
        value = members.get(name)
        if name in _NUMBERS_OF_HTTP and _status_of({name: value}) is not None:
            continue
        code = _text(value)
        if code is None or _NO_ERROR.fullmatch(code) or (name in _WORDS_ONLY and not _is_word(code)):
            continue
        if not code.isdecimal():
            return code
        number = number or code
    error = members.get("error")
    if number is None and isinstance(error, str) and "_" in error and _is_word(error):
        return error  # OAuth: "invalid_request" beside its description
    return number


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and _STATES.fullmatch(text) is None


def _status_of(members: Mapping[str, Any]) -> int | None:
    for name in ("status", "statuscode", "httpstatus"):
        value = members.get(name)
        if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value, re.ASCII):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return None


def _delay(members: Mapping[str, Any]) -> float | None:
    for name in ("retryafter", "retryafterseconds", "retrydelay", "estimatedtime"):  # Hugging Face: until it is loaded
        value = members.get(name)
        if isinstance(value, str) and (found := _DELAY.fullmatch(value)):
            value = float(found[1])
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 86400:
            return float(value)
    return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _text(value: Any) -> str | None:
    """Return a code, text or number, as text; None: empty or absent."""
    if isinstance(value, bool) or value is None or value == "":
        return None
    return str(value) if isinstance(value, (str, int, float)) else None
