"""A client's request in whichever body it comes: forms and JSON, typed once, refused by name, its room given back."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagegate.asgi.helpers import ClientDisconnected
from imagegate.contracts.parameter import Parameter
from imagegate.errors import ImagegateError, Overloaded, PayloadTooLarge, RequestError, UnsupportedMedia
from imagegate.ingest.form_reader import FormLimits
from imagegate.ingest.request_reader import ReadLimits, read_exchange, release
from imagegate.protocol.messages import Exchange, FileID, Link
from imagegate.protocol.requests import from_text, read_form_fields
from imagegate.spool.budget import Budget
from imagegate.spool.memory import FLOOR, Memory
from imagegate.spool.upload import Upload
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

MIB = 1024 * 1024
TOTAL, MEMORY = 32 * MIB, 2 * MIB
BOUNDARY = "x-boundary-x"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
GOOD = [("model", "m"), ("prompt", "A kite")]

File = tuple[str, str | None, str | None, bytes]


def png(red: int = 0, size: int = 8) -> bytes:
    """A real picture, another one for each `red`."""
    buffer = io.BytesIO()
    Image.new("RGBA", (size, size), (red, 0, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def a_file(
    part: str = "image", content: bytes | None = None, name: str = "a.png", kind: str | None = "image/png"
) -> File:
    return part, name, kind, png() if content is None else content


def form_of(fields: Sequence[tuple[str, str]], files: Sequence[File] = ()) -> bytes:
    """A form: fields, then files; a file without a name is a text part."""
    body = b""
    for name, value in fields:
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    for name, filename, kind, content in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
        head += "" if filename is None else f'; filename="{filename}"'
        head += "" if kind is None else f"\r\nContent-Type: {kind}"
        body += head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


class Reading:
    """Reads bodies within one budget, and knows whether all of it is there."""

    def __init__(self) -> None:
        self.budget = Budget(total=TOTAL, memory=MEMORY)
        self.memory = Memory(256 * MIB)
        self.exchanges: list[Exchange] = []

    def read(
        self,
        body: bytes,
        content_type: str | None = FORM,
        *,
        operation: str = "edits",
        headers: Sequence[tuple[bytes, bytes]] = (),
        limits: ReadLimits | None = None,
        step: int = 65_536,
        disconnect_after: int | None = None,
        read: list[int] | None = None,
    ) -> Exchange:
        """The exchange of a body that comes in pieces."""
        if content_type is not None:
            headers = [*headers, (b"content-type", content_type.encode())]
        scope = {"type": "http", "headers": list(headers), PROGRESS_KEY: Progress(operation)}
        pieces = [body[start : start + step] for start in range(0, len(body), step)] or [b""]
        if disconnect_after is not None:
            pieces = pieces[:disconnect_after]
        messages: Iterator[dict[str, Any]] = (
            {
                "type": "http.request",
                "body": piece,
                "more_body": disconnect_after is not None or place < len(pieces) - 1,
            }
            for place, piece in enumerate(pieces)
        )

        async def receive() -> dict[str, Any]:
            message = next(messages, {"type": "http.disconnect"})
            if read is not None:
                read.append(len(message.get("body", b"")))
            return message

        exchange = asyncio.run(
            read_exchange(
                scope,  # type: ignore[arg-type]
                receive,  # type: ignore[arg-type]
                limits=limits or ReadLimits(),
                budget=self.budget,
                memory=self.memory,
            )
        )
        self.exchanges.append(exchange)
        return exchange

    def read_json(self, document: Any, **options: Any) -> Exchange:
        return self.read(json.dumps(document).encode(), "application/json", **options)

    def close(self) -> None:
        """Closes what is open; afterwards the whole budget must be there, and nothing beyond it."""
        for exchange in self.exchanges:
            release(exchange.request)
        assert self.memory.held == 0
        self.budget.take(TOTAL)
        assert self.budget.take_memory(MEMORY)
        with pytest.raises(Overloaded):
            self.budget.take(1)
        assert not self.budget.take_memory(1)
        self.budget.give_back(total=TOTAL, memory=MEMORY)


@pytest.fixture
def reading() -> Iterator[Reading]:
    """After every test, whether it read or refused, all room is there again."""
    reading = Reading()
    yield reading
    reading.close()


def contents(exchange: Exchange) -> list[bytes]:
    """The bytes of the images in their order."""
    return [asyncio.run(image.read()) for image in exchange.request.images if isinstance(image, Upload)]


def refused(reading: Reading, body: bytes, content_type: str = FORM, **options: Any) -> ImagegateError:
    """The error of a body, after which nothing may be held."""
    with pytest.raises(ImagegateError) as caught:
        reading.read(body, content_type, **options)
    reading.close()
    return caught.value


# Forms


@pytest.mark.parametrize("step", [1, 17, 65_536])
def test_a_form_with_one_file(reading, step):
    """Fields, bytes, file name and type of a form come in, wherever it is cut."""
    request = reading.read(form_of([*GOOD, ("n", "2")], [a_file(name="größe.png")]), step=step).request
    assert request.fields == {"model": "m", "prompt": "A kite", "n": 2}
    assert request.from_form
    assert (request.mask, request.markup, request.body) == (None, None, None)
    (image,) = request.images
    assert isinstance(image, Upload)
    assert (image.part, image.filename, image.media_type) == ("image", "größe.png", "image/png")
    assert [png()] == contents(reading.exchanges[0])


NAMES = [
    (["image"], [0]),
    (["image", "image", "image"], [0, 1, 2]),
    (["image[]", "image[]", "image[]"], [0, 1, 2]),
    (["image[0]", "image[1]", "image[2]"], [0, 1, 2]),
    (["image[2]", "image[0]", "image[1]"], [1, 2, 0]),
    (["image[10]", "image[9]", "image[2]"], [2, 1, 0]),
    (["image", "image[]", "image[]"], [0, 1, 2]),
    (["image[0]", "image[0]"], [0, 1]),
    (["image[007]", "image[1]"], [1, 0]),
]


@pytest.mark.parametrize(("names", "order"), NAMES, ids=[" ".join(names) for names, _ in NAMES])
def test_part_names_of_images(reading, names, order):
    """Every spelling of several images; a number says the place, else it is the order of the form."""
    pictures = [png(red) for red in range(len(names))]
    exchange = reading.read(
        form_of(GOOD, [a_file(name, picture) for name, picture in zip(names, pictures, strict=True)])
    )
    assert [pictures[place] for place in order] == contents(exchange)


@pytest.mark.parametrize("name", ["mask", "mask[]"])
@pytest.mark.parametrize("first", [True, False])
def test_mask_and_markup_are_no_images(reading, name, first):
    """The mask is found wherever it stands in the form."""
    extras = [a_file(name, png(9)), a_file("markup", png(8))]
    images = [a_file("image[]", png(1)), a_file("image[]", png(2))]
    exchange = reading.read(form_of(GOOD, [*extras, *images] if first else [*images, *extras]))
    request = exchange.request
    assert [png(1), png(2)] == contents(exchange)
    assert isinstance(request.mask, Upload) and isinstance(request.markup, Upload)
    assert png(9) == asyncio.run(request.mask.read())
    assert png(8) == asyncio.run(request.markup.read())


def test_fields_may_come_after_files(reading):
    """The official Node SDK puts lists last, curl users whatever they like."""
    body = form_of([], [a_file()])[: -len(f"--{BOUNDARY}--\r\n")] + form_of(GOOD)
    assert reading.read(body).request.fields == {"model": "m", "prompt": "A kite"}


def test_sixteen_images_and_a_mask(reading):
    """As many as OpenAI takes, in order; the mask is not counted."""
    pictures = [png(red) for red in range(16)]
    exchange = reading.read(form_of(GOOD, [*(a_file("image[]", picture) for picture in pictures), a_file("mask")]))
    assert pictures == contents(exchange)


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "image/png", "text/plain"])
def test_file_without_a_name_or_a_type(reading, kind):
    """An empty file name becomes one, and the type is told from the bytes."""
    (image,) = reading.read(form_of(GOOD, [a_file(name="", kind=kind)])).request.images
    assert isinstance(image, Upload)
    assert (image.filename, image.media_type) == ("upload", "image/png")


REFUSED = {
    "text where a file belongs": ([*GOOD, ("image", "https://a.example/a.png")], [], "image", "invalid_type"),
    "text in image[]": ([*GOOD, ("image[]", "a.png")], [a_file()], "image[]", "invalid_type"),
    "text as the mask": ([*GOOD, ("mask", "a.png")], [a_file()], "mask", "invalid_type"),
    "text as the markup": ([*GOOD, ("markup", " ")], [a_file()], "markup", "invalid_type"),
    "no image": (GOOD, [], "image", "missing_required_parameter"),
    "a mask without an image": (GOOD, [a_file("mask")], "image", "missing_required_parameter"),
    "unknown part": (GOOD, [a_file(), a_file("picture")], "picture", "unknown_parameter"),
    "unknown part first": (GOOD, [a_file("file"), a_file()], "file", "unknown_parameter"),
    "images": (GOOD, [a_file("images")], "images", "unknown_parameter"),
    "images[]": (GOOD, [a_file("images[]")], "images[]", "unknown_parameter"),
    "image[x]": (GOOD, [a_file("image[x]")], "image[x]", "unknown_parameter"),
    "image[-1]": (GOOD, [a_file("image[-1]")], "image[-1]", "unknown_parameter"),
    "image[1][2]": (GOOD, [a_file("image[1][2]")], "image[1][2]", "unknown_parameter"),
    "Image": (GOOD, [a_file("Image")], "Image", "unknown_parameter"),
    "prompt as a file": ([("model", "m")], [a_file(), a_file("prompt", b"A kite")], "prompt", "unknown_parameter"),
    "two masks": (GOOD, [a_file(), a_file("mask"), a_file("mask")], "mask", "invalid_value"),
    "two masks, spelled differently": (GOOD, [a_file(), a_file("mask"), a_file("mask[]")], "mask[]", "invalid_value"),
    "empty image": (GOOD, [a_file(content=b"")], "image", "invalid_image_file"),
    "empty image among others": (GOOD, [a_file("image[]"), a_file("image[]", b"")], "image[]", "invalid_image_file"),
    "empty mask": (GOOD, [a_file(), a_file("mask", b"")], "mask", "invalid_image_file"),
    "no picture": (GOOD, [a_file(content=b"GET / HTTP/1.1", kind="text/plain")], "image", "invalid_image_file"),
    "no picture, no type": (GOOD, [a_file(content=b"%PDF-1.7", kind=None)], "image", "invalid_image_file"),
    "no picture as the mask": (GOOD, [a_file(), a_file("mask", b"?", kind=None)], "mask", "invalid_image_file"),
    "17 images": (GOOD, [a_file("image[]") for _ in range(17)], "image[]", "invalid_value"),
    "no model": ([("prompt", "A kite")], [a_file()], "model", "missing_required_parameter"),
    "no prompt": ([("model", "m")], [a_file()], "prompt", "missing_required_parameter"),
    "n is no number": ([*GOOD, ("n", "two")], [a_file()], "n", "invalid_type"),
    "n is too small": ([*GOOD, ("n", "0")], [a_file()], "n", "integer_below_min_value"),
    "prompt twice": ([*GOOD, ("prompt", "A dog")], [a_file()], "prompt", "invalid_value"),
    "a and a[]": ([*GOOD, ("a", "1"), ("a[]", "2")], [a_file()], "a[]", "invalid_value"),
    "a[] and a[b]": ([*GOOD, ("a[]", "1"), ("a[b]", "2")], [a_file()], "a[b]", "invalid_value"),
    "a[b] twice": ([*GOOD, ("a[b]", "1"), ("a[b]", "2")], [a_file()], "a[b]", "invalid_value"),
}


@pytest.mark.parametrize("step", [7, 65_536])
@pytest.mark.parametrize(("fields", "files", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_forms_that_are_refused(reading, fields, files, param, code, step):
    """The error names the part at fault, and nothing of the form is kept."""
    error = refused(reading, form_of(fields, files), step=step)
    assert (400, param, code) == (error.status, error.param, error.code)
    assert isinstance(error, RequestError)


def test_a_text_part_where_a_file_belongs_is_explained(reading):
    """OneToken's own example does so; the message says what to do."""
    error = refused(reading, form_of([*GOOD, ("image", "@otter.png")]))
    assert "file" in error.message
    assert "text" in error.message


@pytest.mark.parametrize("part", ["images", "images[]", "images[0]"])
def test_images_is_a_mistake_that_is_explained(reading, part):
    """Who calls the part as the JSON member is called is told its name in forms."""
    assert "'image'" in refused(reading, form_of(GOOD, [a_file(part)])).message


def test_large_files_and_forms(reading):
    """Bytes of a file and of a form are limited, whatever the header says, and the connection is not used again."""
    limits = ReadLimits(form=FormLimits(form=3 * MIB, file=MIB))
    picture = png()
    fits = a_file(content=picture + bytes(MIB - len(picture)))
    reading.read(form_of(GOOD, [fits]), limits=limits)
    too_large = refused(reading, form_of(GOOD, [a_file("image[]", png() + bytes(MIB))]), limits=limits)
    assert isinstance(too_large, PayloadTooLarge)
    assert (too_large.status, too_large.param, (b"connection", b"close") in too_large.headers) == (
        413,
        "image[]",
        False,
    )
    whole = refused(
        reading, form_of(GOOD, [a_file("image[]", png() + bytes(MIB - 1000)) for _ in range(4)]), limits=limits
    )
    assert (whole.status, (b"connection", b"close") in whole.headers) == (413, True)
    mask = refused(reading, form_of(GOOD, [a_file(), a_file("mask", png() + bytes(MIB))]), limits=limits)
    assert (mask.status, mask.param) == (413, "mask")


def test_large_and_many_fields(reading):
    """Fields are limited in size and number."""
    error = refused(reading, form_of([*GOOD, ("note", "x" * (MIB + 1))], [a_file()]))
    assert (error.status, error.param) == (413, "note")
    error = refused(reading, form_of([(f"f{place}", "x") for place in range(200)], [a_file()]))
    assert (error.status, error.code) == (400, "invalid_form")
    error = refused(reading, form_of([("model", "m"), ("prompt", "x" * 32_001)], [a_file()]))
    assert (error.status, error.param) == (400, "prompt")


def test_the_spool_is_full(reading):
    """Beyond the budget a form is answered 503 with the time to come again, and holds nothing."""
    pictures = [a_file("image[]", png() + bytes(5 * MIB)) for _ in range(7)]
    error = refused(reading, form_of(GOOD, pictures))
    assert isinstance(error, Overloaded)
    assert error.status == 503
    assert any(name == b"retry-after" for name, _ in error.headers)


@pytest.mark.parametrize("pieces", [0, 1, 2, 40])
def test_client_leaves(reading, pieces):
    """A client that leaves before the end is no error of ours, and nothing of its form is kept."""
    body = form_of(GOOD, [a_file("image[]", png() + bytes(2 * MIB)), a_file("image[]", png() + bytes(2 * MIB))])
    with pytest.raises(ClientDisconnected):
        reading.read(body, disconnect_after=pieces)
    reading.close()


def test_every_truncation_of_a_form_is_refused(reading):
    """A form whose end does not come is a 400, wherever it breaks off."""
    body = form_of(GOOD, [a_file("image[]"), a_file("image[]"), a_file("mask")])
    end = len(body) - len("\r\n")
    for length in range(end):
        error = refused(reading, body[:length], step=50)
        assert (error.status, error.code) == (400, "invalid_form")
    reading.read(body[:end])


@given(st.data())
def test_damaged_forms_are_read_or_refused(data):
    """Whatever happens to a form, the answer is a request or an error for the client, and all room is given back."""
    reading = Reading()
    body = bytearray(form_of([*GOOD, ("a[b]", "1")], [a_file("image[]"), a_file("mask")]))
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(body)))
        end = min(len(body), start + data.draw(st.integers(0, 20)))
        body[start:end] = data.draw(st.binary(max_size=6) | st.sampled_from([b"\r\n", b'"', b"[]", b"]["]))
    try:
        reading.read(bytes(body), step=data.draw(st.sampled_from([1, 10, 1000])))
    except (RequestError, UnsupportedMedia):
        pass
    finally:
        reading.close()


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        (f"multipart/form-data; boundary={'b' * 100}", 400),
        ("multipart/form-data; boundary=another", 400),
        ("multipart/mixed; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("image/png", 415),
    ],
)
def test_content_types_that_are_no_form(reading, content_type, status):
    """A form without its boundary is malformed, any other body is one that the endpoint does not read."""
    assert status == refused(reading, form_of(GOOD, [a_file()]), content_type).status


# Fields of forms


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("a", "1")], {"a": "1"}),
        ([("a[]", "1")], {"a": ["1"]}),
        ([("a[]", "1"), ("a[]", "2"), ("a[]", "2")], {"a": ["1", "2", "2"]}),
        ([("a[b]", "1")], {"a": {"b": "1"}}),
        ([("a[b]", "1"), ("a[c]", "2")], {"a": {"b": "1", "c": "2"}}),
        ([("a[b][c]", "1"), ("a[b][d]", "2"), ("a[e]", "3")], {"a": {"b": {"c": "1", "d": "2"}, "e": "3"}}),
        ([("a[b][]", "1"), ("a[b][]", "2")], {"a": {"b": ["1", "2"]}}),
        (
            [("svg[model]", "m"), ("svg[reasoning][effort]", "max")],
            {"svg": {"model": "m", "reasoning": {"effort": "max"}}},
        ),
        ([("a[0]", "x"), ("a[1]", "y")], {"a": {"0": "x", "1": "y"}}),
        ([("[a]", "1")], {"[a]": "1"}),
        ([("a[", "1")], {"a[": "1"}),
        ([("a]b[", "1")], {"a]b[": "1"}),
        ([("a[b]c", "1")], {"a[b]c": "1"}),
        ([("größe[ä]", "ö")], {"größe": {"ä": "ö"}}),
        ([("metadata[resolution]", "2K")], {"metadata": {"resolution": "2K"}}),
        ([("a", "")], {"a": ""}),
    ],
)
def test_names_of_fields(pairs, expected):
    """Lists, objects and objects in objects, as the official SDKs write them; other names are just names."""
    fields = read_form_fields([*GOOD, *pairs], "edits", max_prompt=1000)
    assert {"model": "m", "prompt": "A kite", **expected} == fields


def test_objects_in_lists_are_not_torn_apart():
    """``a[][b]`` is kept whole or refused; what belongs together does not become something else."""
    try:
        fields = read_form_fields([*GOOD, ("a[][b]", "1"), ("a[][c]", "2")], "edits", max_prompt=1000)
    except RequestError:
        return
    assert fields["a"] in ([{"b": "1", "c": "2"}], [{"b": "1"}, {"c": "2"}])


_BRACKETED = st.text(alphabet="ab[]", max_size=10)


@given(st.lists(st.tuples(_BRACKETED, st.text(max_size=3)), max_size=8))
def test_any_names_are_read_or_refused(pairs):
    """No combination of names raises anything but `RequestError`, and no value gets lost."""
    try:
        fields = read_form_fields([*GOOD, *pairs], "edits", max_prompt=1000)
    except RequestError:
        return

    def count(value: Any) -> int:
        if isinstance(value, dict):
            return sum(map(count, value.values()))
        return sum(map(count, value)) if isinstance(value, list) else 1

    assert len(pairs) + len(GOOD) == count(fields)


INTEGER, NUMBER, BOOLEAN = Parameter(type="integer"), Parameter(type="number"), Parameter(type="boolean")


@pytest.mark.parametrize(
    ("text", "parameter", "expected"),
    [
        ("1", INTEGER, 1),
        (" 10\n", INTEGER, 10),
        ("-3", INTEGER, -3),
        ("+3", INTEGER, 3),
        ("007", INTEGER, 7),
        ("1", NUMBER, 1.0),
        ("0.5", NUMBER, 0.5),
        ("-12.25", NUMBER, -12.25),
        ("true", BOOLEAN, True),
        ("True", BOOLEAN, True),
        ("1", BOOLEAN, True),
        ("false", BOOLEAN, False),
        ("FALSE", BOOLEAN, False),
        ("0", BOOLEAN, False),
        (" x ", Parameter(), " x "),
        ("1", Parameter(type="any"), "1"),
    ],
)
def test_text_becomes_what_the_parameter_is(text, parameter, expected):
    """A form's text as integer, number or boolean; strings are not touched."""
    found = from_text("x", text, parameter)
    assert (type(expected), expected) == (type(found), found)


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("", INTEGER),
        ("1.0", INTEGER),
        ("1e3", INTEGER),
        ("0x10", INTEGER),
        ("1 2", INTEGER),
        ("1_000", INTEGER),
        ("٣", INTEGER),
        ("9" * 30, INTEGER),
        ("null", INTEGER),
        ("true", INTEGER),
        ("nan", NUMBER),
        ("inf", NUMBER),
        ("1,5", NUMBER),
        (".5", NUMBER),
        ("yes", BOOLEAN),
        ("on", BOOLEAN),
        ("2", BOOLEAN),
        ("", BOOLEAN),
    ],
)
def test_text_that_cannot_become_it(text, parameter):
    """What is no such value is refused by name, in OpenAI's words."""
    with pytest.raises(RequestError) as caught:
        from_text("n", text, parameter)
    assert (caught.value.param, caught.value.code) == ("n", "invalid_type")
    assert parameter.type in caught.value.message


# JSON


def data(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def test_links_stay_links_and_data_urls_become_files(reading):
    """The images of a JSON edit, in order, out of its fields."""
    exchange = reading.read_json(
        {
            "model": "m",
            "prompt": "p",
            "images": [{"image_url": "https://a.example/a.png"}, {"image_url": data(png(1))}, {"file_id": "file-1"}],
            "mask": {"image_url": data(png(2))},
            "n": 1,
            "user": None,
        }
    )
    request = exchange.request
    assert request.fields == {"model": "m", "prompt": "p", "n": 1}
    link, upload, file_id = request.images
    assert (Link("https://a.example/a.png", "images[0]"), FileID("file-1", "images[2]")) == (link, file_id)
    assert isinstance(upload, Upload) and isinstance(request.mask, Upload)
    assert (png(1), png(2)) == (asyncio.run(upload.read()), asyncio.run(request.mask.read()))
    assert not request.from_form


@pytest.mark.parametrize("operation", ["edits", "variations"])
def test_the_same_for_both_operations(reading, operation):
    """Variations need no prompt, and take their image in the same way."""
    prompt = {"prompt": "p"} if operation == "edits" else {}
    request = reading.read_json({"model": "m", **prompt, "image": data(png())}, operation=operation).request
    assert [Upload] == [type(image) for image in request.images]


def test_generations_keep_their_links(reading):
    """A generation's members stay as they are, and its body with them."""
    document = {"model": "m", "prompt": "p", "image_urls": ["https://a.example/a.png"]}
    request = reading.read_json(document, operation="generations").request
    assert (document, (), json.dumps(document).encode()) == (request.fields, request.images, request.body)


@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({}, "images", "missing_required_parameter"),
        ({"images": None}, "images", "missing_required_parameter"),
        ({"mask": {"image_url": data(png())}}, "images", "missing_required_parameter"),
        ({"images": [data(png()), {"image_url": "ftp://a.example/a.png"}]}, "images[1]", "invalid_url"),
        ({"images": [data(png()), data(b"?", "text/plain")]}, "images[1]", "invalid_image_file"),
        ({"images": [data(png()), "data:image/png;base64,?"]}, "images[1]", "invalid_base64"),
        ({"images": [data(png() + bytes(2 * MIB)), 5]}, "images[1]", "invalid_type"),
        ({"image": data(png()), "mask": {"image_url": "x"}}, "mask", "invalid_url"),
    ],
)
def test_json_that_is_refused(reading, members, param, code):
    """The error names the member, and files that were made of others are given back."""
    body = json.dumps({"model": "m", "prompt": "p", **members}).encode()
    error = refused(reading, body, "application/json")
    assert (400, param, code) == (error.status, error.param, error.code)


def test_data_urls_count_in_the_budget(reading):
    """More data than the spool holds is a 503, in JSON as in forms."""
    limits = ReadLimits(json_body=200 * MIB)
    document = {"model": "m", "prompt": "p", "images": [data(png() + bytes(12 * MIB)) for _ in range(3)]}
    error = refused(reading, json.dumps(document).encode(), "application/json", limits=limits)
    assert isinstance(error, Overloaded)


def test_the_length_of_json_is_limited(reading):
    """JSON beyond the limit is a 413."""
    document = {"model": "m", "prompt": "p", "image": data(bytes(1000))}
    error = refused(reading, json.dumps(document).encode(), "application/json", limits=ReadLimits(json_body=1000))
    assert error.status == 413


# Explain


@pytest.mark.parametrize(("value", "expected"), [(b"?1", True), (b"?0", False), (b" ?1 ", True)])
def test_explain(reading, value, expected):
    """The header is an RFC 9651 boolean."""
    exchange = reading.read(form_of(GOOD, [a_file()]), headers=[(b"imagegate-explain", value)])
    assert expected == exchange.explain


@pytest.mark.parametrize("value", [b"1", b"true", b"yes", b"?2", b"?1;a=b"])
def test_explain_is_never_guessed(reading, value):
    """Who wants only to look must not be charged because of a spelling."""
    error = refused(reading, form_of(GOOD, [a_file()]), headers=[(b"imagegate-explain", value)])
    assert (error.status, error.param) == (400, "Imagegate-Explain")


def test_the_room_of_a_body_is_asked_for_before_it_is_read():
    """By the length that it has announced; a request that finds none has cost nothing."""
    reading = Reading()
    reading.memory = Memory(8 * MIB)
    body = json.dumps({"model": "m", "prompt": "p", "user": "u" * 4 * MIB}).encode()
    length = (b"content-length", str(len(body)).encode())
    read: list[int] = []
    with pytest.raises(Overloaded) as caught:
        reading.read(body, "application/json", operation="generations", headers=[length], read=read)
    assert read == []
    assert (b"retry-after", b"1") in caught.value.headers
    reading.close()


def test_a_body_of_unknown_length_grows_until_there_is_no_room():
    """It does not wait: nobody who waits would give room to another."""
    reading = Reading()
    reading.memory = Memory(8 * MIB)
    body = json.dumps({"model": "m", "prompt": "p", "user": "u" * 4 * MIB}).encode()
    read: list[int] = []
    with pytest.raises(Overloaded):
        reading.read(body, "application/json", operation="generations", read=read)
    assert 2 * MIB < sum(read) < 4 * MIB
    reading.close()


def test_pictures_that_went_to_the_spool_are_not_held_any_more(reading):
    """What is left of a JSON edit are its other members."""
    url = "data:image/png;base64," + base64.b64encode(png() + bytes(4 * MIB)).decode()
    document = {"model": "m", "prompt": "p", "images": [{"image_url": url}]}
    reading.read_json(document)
    assert reading.memory.held == FLOOR
    body = json.dumps(document).encode()
    reading.read(body, "application/json", headers=[(b"content-length", str(len(body)).encode())])
    assert reading.memory.held == 2 * FLOOR


def test_the_files_of_a_small_form_need_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads them before the form is whole, so they wait in memory as long as there is room for them."""

    def no_disk(**_: object) -> object:
        raise AssertionError

    reading = Reading()
    reading.budget = Budget(total=TOTAL, memory=4 * MIB)
    monkeypatch.setattr("tempfile.TemporaryFile", no_disk)
    files = [png(place) + bytes(MIB) for place in range(3)]
    body = form_of(GOOD, [a_file("image[]", each) for each in files])
    assert contents(reading.read(body)) == files
    release(reading.exchanges.pop().request)
    assert reading.budget.take_memory(4 * MIB)
