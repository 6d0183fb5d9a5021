"""Log lines: in hosts that have configured structlog or plain logging their own way, and in a process of our own."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from tests.layers.test_layers import LEGAL, Handler, post
from tests.telemetry.support import PROMPT

from imagegate.asgi.in_process import ask
from imagegate.cli.explain import generate
from imagegate.config.loader import parse_config
from imagegate.config.schema import LogConfig
from imagegate.contracts.changes import Change
from imagegate.gateway import ImageGateway
from imagegate.layers import Observe
from imagegate.logger import get_logger
from imagegate.stores.memory import MemoryStore
from imagegate.stores.serving import ServeImages
from imagegate.streaming.image_sinks import storage_error
from imagegate.telemetry.capture import Capture
from imagegate.telemetry.log import LogHook, line_of
from imagegate.telemetry.log_output import configure_logs
from imagegate.telemetry.progress import Progress, finish
from imagegate.testing import Lint


@pytest.fixture
def plain() -> Iterator[io.StringIO]:
    """A host that has set up the standard library's logging with a format of its own."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.Formatter("%(levelname)s|%(name)s|%(message)s"))
    logger = logging.getLogger("imagegate")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield output
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


class Rig:
    """Observe in front of a handler, as a host would use it."""

    def __init__(self, **options: Any) -> None:
        self.app = Lint(Observe(Handler(), **options))

    def post(self, **headers: str) -> None:
        post(self.app, LEGAL, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_host_with_plain_logging(plain: io.StringIO) -> None:
    """Lines go to the logger `imagegate`, in the host's own format; nothing of structlog's is configured."""
    Rig().post(x_request_id="mine-1")
    line = plain.getvalue()
    assert line.startswith("INFO|imagegate|exchange request_id=mine-1 ")
    assert " status=200 " in line and " outcome=ok " in line
    assert not structlog.is_configured()


def test_facts_are_on_the_record(plain: io.StringIO) -> None:
    """A host whose formatter writes JSON finds the facts as a dict, of the types that they have."""
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keeping = Keeping()
    logging.getLogger("imagegate").addHandler(keeping)
    Rig().post(x_request_id="mine-1")
    logging.getLogger("imagegate").removeHandler(keeping)
    facts: dict[str, Any] = records[0].imagegate  # type: ignore[attr-defined]
    assert (facts["request_id"], facts["status"]) == ("mine-1", 200)


def test_plain_lines_quote_what_is_no_word(plain: io.StringIO) -> None:
    """A model's name cannot make a second line, another fact, or a template."""
    progress = Progress("generations", model='a "b" %s\nc=d', request_id="r")
    LogHook().exchange_ended(finish(progress, status=200, seconds=1))
    assert plain.getvalue().count("\n") == 1
    assert "model='a \"b\" %s\\nc=d'" in plain.getvalue()


def test_plain_logging_has_the_traceback(plain: io.StringIO) -> None:
    """What nobody thought of is logged with its traceback."""
    try:
        raise KeyError("x")
    except KeyError:
        get_logger().exception("unexpected error", request_id="r")
    assert plain.getvalue().startswith("ERROR|imagegate|unexpected error request_id=r\nTraceback")


def test_why_a_store_failed(plain: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    """Also what is no exchange goes to the host's logging, and nothing to its standard output."""

    class Broken(MemoryStore):
        def holds(self, key: str, query_string: bytes) -> bool:
            raise OSError("the disk is gone")

    storage_error(OSError("quota of the bucket"))
    answered = asyncio.run(ask(ServeImages(Broken(ttl=60)), "GET", f"/images/{'k' * 32}.png"))
    assert answered.status == 502
    assert b"disk" not in answered.body
    assert plain.getvalue().splitlines() == [
        "WARNING|imagegate|store failed reason='quota of the bucket'",
        "WARNING|imagegate|store failed reason='the disk is gone'",
    ]
    assert capfd.readouterr().out == ""


def test_plain_logging_below_its_level(plain: io.StringIO) -> None:
    """A host that wants warnings only gets no line for a good exchange."""
    logging.getLogger("imagegate").setLevel(logging.WARNING)
    Rig().post()
    assert plain.getvalue() == ""


def test_host_with_structlog() -> None:
    """A host's processors get the event with its facts, among them what the host has bound itself."""
    lines: list[dict[str, Any]] = []

    def keep(_: Any, level: str, event: dict[str, Any]) -> str:
        lines.append({**event, "level": level})
        return ""

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, keep], logger_factory=structlog.ReturnLoggerFactory()
    )
    with structlog.contextvars.bound_contextvars(tenant="t1"):
        Rig().post(x_request_id="mine-1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    assert len(lines) == 1
    expected = {"event": "exchange", "level": "info", "tenant": "t1", "request_id": "mine-1", "status": 200}
    assert expected.items() <= lines[0].items()
    assert (lines[0]["trace_id"], lines[0]["span_id"]) == ("a" * 32, "b" * 16)
    assert structlog.contextvars.get_contextvars() == {}


def test_structlog_configured_later() -> None:
    """A hook that was made before the host set up its logging follows it all the same."""
    hook = LogHook()
    with structlog.testing.capture_logs() as lines:
        hook.exchange_ended(finish(Progress("generations"), status=502, seconds=1))
    assert [(line["event"], line["log_level"]) for line in lines] == [("exchange", "warning")]


def everything() -> Progress:
    progress = Progress("edits", request_id="r", model="m" * 300, route="m", upstream="u", upstream_model="n")
    progress.traceparent, progress.key_name = f"00-{'a' * 32}-{'b' * 16}-01", "alice"
    progress.images_asked, progress.images_delivered, progress.sizes_made = 2, 2, ("1024x1024", "512x512")
    progress.queue_seconds = progress.delivery_seconds = 0.123456
    progress.first_byte_seconds = 0.5
    progress.fit_changes = (Change("size", "dropped"),)
    progress.idempotent, progress.retries, progress.error_code = "joined", 1, "odd"
    return progress


def test_facts_of_an_exchange() -> None:
    """A line has every fact that there is, rounded and cut, and none that there is not."""
    with structlog.testing.capture_logs() as lines:
        LogHook().exchange_ended(finish(everything(), status=400, seconds=1.23456789, cost=0.08, currency="EUR"))
    line = lines[0]
    assert line["seconds"] == 1.2346
    assert line["queue_seconds"] == 0.1235
    assert line["model"] == "m" * 128
    assert line["sizes"] == "1024x1024,512x512"
    assert line["changes"] == "size;dropped"
    assert line["cost"] == "0.08 EUR"
    assert (line["images_asked"], line["images_delivered"], line["key_name"]) == (2, 2, "alice")
    assert "polls" not in line and "prompt" not in line and "links" not in line


def test_json_lines_of_our_own_process(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """One JSON object a line on standard error, with time, level and what is bound; tracebacks without values."""
    configure_logs("json")
    secret = "sk-in-a-local-variable"  # noqa: F841 - must not be in the traceback
    try:
        raise KeyError("x")
    except KeyError:
        with structlog.contextvars.bound_contextvars(request_id="r"):
            get_logger().exception("unexpected error", odd={1, 2})
    line = json.loads(capsysbinary.readouterr().err)
    assert (line["event"], line["level"], line["request_id"]) == ("unexpected error", "error", "r")
    assert line["timestamp"].endswith("Z")
    assert line["exception"][0]["exc_type"] == "KeyError"
    assert "sk-in-a-local" not in str(line["exception"][0].get("frames", [{}])[0].get("locals"))
    sys.stderr.flush()


def test_console_lines_of_our_own_process(capsys: pytest.CaptureFixture[str]) -> None:
    """For people."""
    configure_logs("console")
    get_logger().info("exchange", status=200)
    assert "exchange" in capsys.readouterr().err


GATEWAY = """
[[upstreams]]
name = "openai"
base_url = "http://127.0.0.1:1"
api_key = "sk-test-key"
[delivery]
store = "memory://"
[log]
"""


@pytest.mark.parametrize(("section", "told"), [("", False), ("prompts = true", True), ("links = true", False)])
def test_prompts_only_where_asked_for(section: str, told: bool) -> None:
    """The prompt is in the line where the configuration says so, and nowhere else."""

    async def run() -> list[Any]:
        async with ImageGateway(config=parse_config(GATEWAY + section)) as gateway:
            with structlog.testing.capture_logs() as lines:
                body = json.dumps({"model": "gpt-image-1", "prompt": PROMPT}).encode()
                assert (await generate(gateway, body)).status == 502
        return list(lines)

    lines = asyncio.run(run())
    assert (PROMPT in str(lines)) is told


def test_links_only_where_asked_for() -> None:
    """A delivered link is in the line where the configuration says so."""
    progress = Progress("generations", capture=Capture())
    progress.capture.answer(b'{"created":1,"data":[{"url":"https://x/1.png?signature=abc"}]}')  # type: ignore[union-attr]
    record = finish(progress, status=200, seconds=1)
    with structlog.testing.capture_logs() as lines:
        LogHook(LogConfig(links=True)).exchange_ended(record)
        LogHook().exchange_ended(record)
    assert lines[0]["links"] == ["https://x/1.png?signature=abc"]
    assert "signature" not in str(lines[1])


class Writes(io.BytesIO):
    """An output that counts how often it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, data: Any) -> int:
        self.count += 1
        return super().write(data)

    def names(self) -> list[str]:
        return [json.loads(line)["request_id"] for line in self.getvalue().splitlines()]


def test_lines_of_one_moment_are_written_together() -> None:
    """In order and soon, at once where there are many, and none is left behind when the process ends."""

    async def test() -> None:
        output = Writes()
        hook = LogHook(output=output)
        for number in range(230):
            hook.exchange_ended(finish(Progress("generations", request_id=str(number)), status=200, seconds=1))
        assert len(output.names()) == 200
        await asyncio.sleep(0.1)
        assert (output.names(), output.count) == ([str(number) for number in range(230)], 3)
        hook.exchange_ended(finish(Progress("generations", request_id="last"), status=200, seconds=1))
        hook.write()
        assert output.names()[-1] == "last"
        await asyncio.sleep(0.1)
        assert output.count == 4

    asyncio.run(test())


def test_no_line_waits_for_another_event_loop() -> None:
    """The loop whose line came first may have ended, and with it the timer that would have written both."""
    output = Writes()
    hook = LogHook(output=output)

    async def test(name: str, seconds: float) -> None:
        hook.exchange_ended(finish(Progress("generations", request_id=name), status=200, seconds=1))
        await asyncio.sleep(seconds)

    asyncio.run(test("1", 0))
    assert output.names() == []
    asyncio.run(test("2", 0.1))
    assert output.names() == ["1", "2"]


def test_without_a_loop_or_with_words_of_the_answer_a_line_is_written_at_once() -> None:
    """There is nobody to write it later, or nothing to write it from: answers are not kept."""
    output = Writes()
    LogHook(output=output).exchange_ended(finish(Progress("generations", request_id="1"), status=200, seconds=1))
    assert output.names() == ["1"]

    async def test() -> None:
        progress = Progress("generations", request_id="2", capture=Capture())
        LogHook(LogConfig(links=True), output=output).exchange_ended(finish(progress, status=200, seconds=1))
        assert output.names() == ["1", "2"]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("status", "code", "outcome", "level"),
    [(200, "", "", "info"), (402, "insufficient_quota", "rejected", "warning"), (400, "unknown_parameter", "", "info")],
)
def test_what_a_provider_refuses_is_a_warning(status: int, code: str, outcome: Any, level: str) -> None:
    """The standard library's logger shows warnings even where no logging is set up; a client's fault is none."""
    progress = Progress("generations", error_code=code, outcome=outcome)
    assert line_of(finish(progress, status=status, seconds=1.0), LogConfig()).level == level
