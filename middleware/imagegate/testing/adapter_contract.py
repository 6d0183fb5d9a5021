"""What every adapter keeps to, as a class of pytest tests."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from types import FrameType, ModuleType
from typing import Any, ClassVar, Final, Literal

import msgspec

from imagegate.adapter import (
    Adapter,
    FileRef,
    ImageReply,
    ImageRequest,
    Link,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
)
from imagegate.contract import Contract, Operation, Parameter, ReferenceForm
from imagegate.errors import ModerationBlocked, RequestError, UpstreamError
from imagegate.fitting.fit import fit
from imagegate.testing.files import MemoryFile, png
from imagegate.testing.outbound import JOB_ID, contracts_of, render, with_references

Outcome = Literal["pictures", "task", "refused", "moderated", "uncertain", "ended"]
PROMPT: Final = "A hat on a table, in oil"
SIZES: Final = (
    *("1024x1024", "1536x1024", "1024x1536", "1792x1024", "2048x2048", "3840x2160", "512x512", "auto"),
    *("1:1", "16:9", "9:16", "21:9", "1K", "2K", "4K"),
)
_OPERATIONS: Final[tuple[Operation, ...]] = ("generations", "edits", "variations")
_GATEWAYS_OWN: Final = ("authorization", "host", "content-length", "connection", "transfer-encoding")
_EFFECTS: Final = frozenset(
    {"posix", "nt", "socket", "_socket", "ssl", "_ssl", "_posixsubprocess", "_winapi", "_sqlite3", "sqlite3"}
)
"""Modules whose compiled functions and methods reach the operating system."""
_OPENS: Final = frozenset({"open", "open_code"})
_HARMLESS: Final = frozenset({"fspath", "getpid", "urandom"})


class Fixture(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's reply, and what it means."""

    name: str
    outcome: Outcome
    """``pictures``, ``task``, or an error: ``ended`` is one that says that a task is over."""
    status: int = 200
    document: Any = None
    body: bytes = b""
    """In place of `document`."""
    headers: dict[str, str] = {}
    count: int = 1
    """Pictures."""
    code: str = ""
    """Of the error; empty: any."""
    means: int = 0
    """Status of the error; 0: any."""
    task: PendingTask | None = None
    """The task that was asked for; None: this answers the request itself."""

    @property
    def reply(self) -> UpstreamReply:
        body = self.body if self.document is None else msgspec.json.encode(self.document)
        kind = {} if self.document is None else {"content-type": "application/json"}
        return UpstreamReply(status=self.status, headers={**kind, **self.headers}, body=body)


AMBIGUOUS: Final = (
    Fixture(
        name="a page in place of a reply", outcome="uncertain", body=b"<html>", headers={"content-type": "text/html"}
    ),
    Fixture(name="an empty reply", outcome="uncertain"),
    Fixture(name="a reply that is cut", outcome="uncertain", body=b'{"data": [{"b64'),
    Fixture(name="an empty object", outcome="uncertain", document={}),
    Fixture(name="a list", outcome="uncertain", document=[]),
    Fixture(name="a gateway that gave up", outcome="uncertain", status=502, body=b"<html>"),
    Fixture(name="a gateway that waited", outcome="uncertain", status=504, body=b""),
    Fixture(name="an error without a reason", outcome="uncertain", status=500, body=b"Internal Server Error"),
)
"""What no provider says itself: whatever it is, something may have been made."""
_SHOWN: Final = 200
"""Bytes of a reply in a message."""
_TASK: Final = PendingTask(id="task/1?x=2")


class AdapterContract:
    """Point it at an adapter::

        class TestExample(AdapterContract):
            adapter = Example()
            fixtures = (Fixture(name="a picture", outcome="pictures", document={"data": [{"b64_json": "..."}]}),)

    It encodes every kind of request that the contracts allow, decodes the fixtures, and holds the adapter to the rules
    that a gateway cannot make up for: nothing is lost, nothing is done beside, and nothing paid looks free.
    """

    adapter: ClassVar[Adapter]
    fixtures: ClassVar[Sequence[Fixture]] = ()

    def test_has_a_name_and_an_address(self) -> None:
        """Its name is one that a configuration can have; its address is an origin, or each upstream has its own."""
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.adapter.name)
        assert not self.adapter.base_url or re.match(r"https?://[^/]+", self.adapter.base_url)

    def test_names_its_sources(self) -> None:
        """The contract file says where its facts come from."""
        provider = self.adapter.contracts().provider
        assert provider is not None, "the TOML file has no [provider]"
        assert provider.title
        assert provider.sources

    def test_retired_models_have_successors(self) -> None:
        """Each is a model of the same adapter that is still there."""
        contracts = contracts_of(self.adapter)
        for name, contract in contracts.items():
            if contract.retired is not None:
                successor = contracts.get(contract.retired.successor)
                assert successor is not None, f"{name}: no contract has {contract.retired.successor}"
                assert successor.retired is None
                assert re.fullmatch(r"20\d\d-\d\d-\d\d", contract.retired.since)
                assert contract.retired.source

    def test_encodes_every_legal_request(self) -> None:
        """Prompt, files, links and mask arrive, each request has one body, and the key is left to the gateway.

        An adapter may refuse what contracts cannot say (`RequestError`), but not all of what they allow.
        """

        async def check() -> int:
            encoded = 0
            for request in _legal_requests(self.adapter):
                with suppress(RequestError):
                    await self._check(request, self.adapter.encode(request))
                    encoded += 1
            return encoded

        assert asyncio.run(check()), "no request can be encoded"

    def test_encoding_is_pure(self) -> None:
        """The same request is written in the same way, without files, sockets and programs, and stays as it is."""
        for request in _legal_requests(self.adapter, briefly=True):
            before = dict(request.fields)
            with suppress(RequestError):
                with _no_effects():
                    first, second = self.adapter.encode(request), self.adapter.encode(request)
                assert _comparable(first) == _comparable(second)
            assert request.fields == before

    def test_keeps_a_model_in_its_place(self) -> None:
        """A client's model cannot lead to another path or query."""
        for request in _legal_requests(self.adapter, briefly=True):
            strange = request.with_fields({**request.fields, "model": "a/../b?c=d#e f%20"})
            with suppress(RequestError):
                path = self.adapter.encode(strange).path
                assert not re.search(r"a/\.\./b|\?c=d| ", path), path

    def test_decodes_its_fixtures(self) -> None:
        """Each reply means what the fixture says."""
        assert self.fixtures, "there are no fixtures"
        assert any(fixture.outcome == "pictures" for fixture in self.fixtures)
        for fixture in self.fixtures:
            check_fixture(self.adapter, fixture)

    def test_ambiguous_replies_are_uncertain(self) -> None:
        """A reply that is not the provider's own word never looks as if nothing had been made."""
        for fixture in AMBIGUOUS:
            check_fixture(self.adapter, fixture)

    def test_decoding_is_pure(self) -> None:
        """Replies are read without files, sockets and programs."""
        for fixture in (*self.fixtures, *AMBIGUOUS):
            with _no_effects(), suppress(UpstreamError):
                _decode(self.adapter, fixture)

    def test_asks_for_tasks_by_get(self) -> None:
        """A question may be asked any number of times; an id cannot lead to another path or query."""
        suffix = self.adapter.question_suffix
        for task in (_TASK, msgspec.structs.replace(_TASK, is_over=True)):
            request = self.adapter.poll(task)
            assert request.method == ("POST" if suffix else "GET")
            assert request.path.partition("?")[0].endswith(suffix)
            assert request.path.startswith("/")
            assert "task/1" not in request.path
            assert "?x=2" not in request.path
        if suffix:  # what is paid for has another address
            for asked in _legal_requests(self.adapter, briefly=True):
                with suppress(RequestError):
                    assert not self.adapter.encode(asked).path.partition("?")[0].endswith(suffix)
        cancel = self.adapter.cancel(_TASK)
        assert cancel is None or cancel.method in ("DELETE", "POST", "PUT")

    async def _check(self, request: ImageRequest, encoded: UpstreamRequest) -> None:
        about = f"{request.model}, {request.operation}: {dict(request.fields)}"
        assert encoded.method == "POST", about
        assert re.fullmatch(r"/[!-~]*", encoded.path), about
        assert "#" not in encoded.path, about
        names = [name for name, _ in encoded.headers]
        assert names == [name.lower() for name in names], about
        assert not {*names} & {*_GATEWAYS_OWN, self.adapter.authentication.header}, about
        bodies = (encoded.body is not None, encoded.document is not None, bool(encoded.parts))
        assert sum(bodies) == 1, about
        sent = await render(self.adapter, encoded)
        text = sent.text
        if "prompt" in request.fields:
            assert PROMPT in text, about
        for reference in request.references:
            if isinstance(reference, MemoryFile):
                assert sent.carries(reference.content), f"{about}: a file is not sent"
            elif not isinstance(reference, FileRef):
                name = reference.url if isinstance(reference, Link) else reference.id
                assert name in text, f"{about}: {name} is not sent"
        if self.adapter.names_jobs:
            assert encoded.job_id == JOB_ID
            assert JOB_ID in text


def check_fixture(adapter: Adapter, fixture: Fixture) -> None:
    """Raise `AssertionError` where a reply does not mean what its fixture says."""
    about = f"{adapter.name}, {fixture.name}"
    try:
        found = _decode(adapter, fixture)
    except UpstreamError as error:
        kind = "moderated" if isinstance(error, ModerationBlocked) else "ended" if error.ends_task else error.outcome
        wanted = {"refused": "rejected"}.get(fixture.outcome, fixture.outcome)
        assert kind == wanted, f"{about}: {kind}, {error.message}"
        assert not fixture.code or error.code == fixture.code, f"{about}: {error.code}"
        assert not fixture.means or error.status == fixture.means, f"{about}: {error.status}"
        return
    if isinstance(found, PendingTask):
        assert fixture.outcome == "task", f"{about}: {found}"
        return
    assert fixture.outcome == "pictures", f"{about}: {found}"
    assert len(found.images) == fixture.count, (
        f"{about}: {len(found.images)} pictures, and its `count` is {fixture.count}"
    )
    assert all(image.url or image.b64_json for image in found.images), about


def _decode(adapter: Adapter, fixture: Fixture) -> ImageReply | PendingTask:
    try:
        if fixture.task is None:
            return adapter.decode(fixture.reply, now=1)
        return adapter.decode_task(fixture.task, fixture.reply, now=1)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        body = fixture.reply.body[:_SHOWN].decode("utf-8", "replace")
        what = "a reply that cannot be read is `uncertain(...)` or what `super().decode` makes of it"
        raise AssertionError(f"{adapter.name}, {fixture.name}: {error!r} for {body!r}; {what}") from error


def _legal_requests(adapter: Adapter, *, briefly: bool = False) -> Iterator[ImageRequest]:
    """Yield requests that the contracts allow, as `encode` gets them.

    Args:
        briefly: with some of the values only, as for a model whose contract is that of another one.
    """
    known: list[Contract] = []
    for model, contract in contracts_of(adapter).items():
        is_brief = briefly or contract in known
        known.append(contract)
        name = model.replace("*", "any") if "*" in model else model
        for operation in _OPERATIONS:
            own = contract.by_operation[operation]
            if own is None or (operation == "variations" and contract.variations is None):
                continue
            members: list[dict[str, Any]] = [{}, *({"size": size} for size in SIZES)]
            members += [fields for each in own.parameters.items() for fields in _values(own, *each)]
            for fields in members[: 3 if is_brief else None]:
                yield from _requests(name, operation, contract, own, fields)


def _requests(
    model: str, operation: Operation, contract: Contract, own: Contract, fields: dict[str, Any]
) -> Iterator[ImageRequest]:
    prompt = {"prompt": PROMPT} if "prompt" in own.parameters or not own.parameters else {}
    request = ImageRequest(operation=operation, fields={"model": model, **prompt, **fields}, job_id=JOB_ID)
    rule = own.references
    shapes: list[tuple[int, bool, ReferenceForm | None]] = []
    if operation == "generations":
        shapes.append((0, False, None))
    elif rule is not None:
        for own_form in rule.forms:
            for some, masked in product({1, min(3, rule.max)}, {False, rule.takes_mask}):
                shapes.append((some, masked, own_form))
    for count, mask, form in shapes:
        kind = rule.kinds[0] if rule else ""
        images = tuple(MemoryFile(png(shade=place), filename=f"{place}.png") for place in range(count))
        if kind and "image/png" not in (rule.kinds if rule else ()):
            continue
        whole = msgspec.structs.replace(request, images=images)
        if mask:
            whole = msgspec.structs.replace(whole, mask=MemoryFile(png(shade=200), filename="mask.png", part="mask"))
        with suppress(RequestError):
            fitted, _ = fit(whole, contract, random=lambda low, _: low)
            yield with_references(fitted, rule, form)


def _values(own: Contract, name: str, parameter: Parameter) -> Iterator[dict[str, Any]]:
    company = {other: values[0] for other, values in parameter.only_with.items()}
    if name == "prompt":
        return
    if parameter.values:
        values: Sequence[Any] = parameter.values
    elif parameter.type in ("integer", "number"):
        values = [int(each) for each in (parameter.min, parameter.max) if each is not None] or [1]
    else:
        values = {"boolean": (True, False), "array": ([],), "object": ({},)}.get(parameter.type, ("a word",))
    for value in values:
        yield {**company, name: value}


def _comparable(request: UpstreamRequest) -> Any:
    parts = [(part.name, getattr(part, "value", None)) for part in request.parts]
    document = json.dumps(request.document, default=lambda each: f"file {each.upload.filename}", sort_keys=True)
    return (request.method, request.path, request.headers, request.body, document, parts, request.job_id)


def _has_effects(function: Any) -> bool:
    owner = getattr(function, "__self__", None)
    if isinstance(owner, ModuleType):
        module, name = owner.__name__, function.__name__
        return (module in _EFFECTS and name not in _HARMLESS) or (module in ("io", "_io") and name in _OPENS)
    return type(owner).__module__ in _EFFECTS


@contextmanager
def _no_effects() -> Generator[None]:
    """Make files, sockets and programs errors meanwhile, in this thread.

    An audit hook could never be taken away again, and would disturb whatever else traces the process.
    """
    before, found = sys.getprofile(), list[str]()

    def watch(_: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and _has_effects(function):
            found.append(function.__qualname__)
            raise AssertionError(f"an adapter is pure, and this one calls {function.__qualname__}")

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)
    assert not found, f"an adapter is pure, and this one calls {', '.join(found)}"
