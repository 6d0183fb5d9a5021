"""The command line: serve, demo, send, explain, models, prices, check."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from imagegate import __version__
from imagegate.cli.keys import add_parser as add_keys_parser
from imagegate.cli.spend import add_parsers as add_spending
from imagegate.errors import ConfigError

DEFAULT_PORT: Final = 8000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 not as it should be, 2 wrong words."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigError as error:
        print(f"imagegate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagegate", description="Lets any OpenAI Images client talk to any image provider."
    )
    parser.add_argument("--version", action="version", version=f"imagegate {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the gateway alone")
    _add_config(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port to listen on (default: %(default)s)")
    serve.add_argument("--workers", type=_count, default=1, help="processes (default: %(default)s)")
    serve.add_argument(
        "--grace",
        type=_seconds,
        metavar="SECONDS",
        help="that running requests have to end in after SIGTERM (default: $IMAGEGATE_GRACE, else 60)",
    )
    serve.add_argument(
        "--otel", action="store_true", help="export spans and metrics as the standard OTEL_* variables say"
    )
    serve.set_defaults(run=_serve)

    demo = commands.add_parser("demo", help="gateway and local providers; no key, no network")
    demo.add_argument("--once", action="store_true", help="send the requests and stop")
    demo.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port of the gateway (default: %(default)s)")
    demo.add_argument("--out", type=Path, default=Path("demo-output"), help="folder of pictures (default: %(default)s)")
    demo.set_defaults(run=_demo)

    send = commands.add_parser("send", help="have pictures made and saved, without a server")
    _add_config(send)
    send.add_argument("prompt", help="what the pictures are to show")
    send.add_argument("--model", required=True, help="as a client would name it; `imagegate models` lists them")
    send.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder (default: this one)")
    send.add_argument("--n", type=int, help="how many pictures")
    send.add_argument("--size", help="such as 1536x1024, 16:9 or 2K")
    send.add_argument("--quality", help="such as high")
    send.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another member; VALUE is JSON or text"
    )
    send.set_defaults(run=_send)

    explain = commands.add_parser("explain", help="show what would be sent upstream; sends nothing")
    _add_config(explain)
    explain.add_argument("request", help="JSON of a request to /v1/images/generations, a file with it, or - for stdin")
    explain.set_defaults(run=_explain)

    models = commands.add_parser("models", help="list models and who answers for them")
    _add_config(models)
    models.add_argument("--adapter", metavar="NAME", help="what is known about one adapter, without a configuration")
    models.add_argument("--json", action="store_true", help="as GET /v1/models answers, with contracts")
    models.set_defaults(run=_models)

    prices = commands.add_parser("prices", help="list what models cost, and where each price is from")
    _add_config(prices)
    prices.add_argument("--json", action="store_true", help="every price with its date and source")
    prices.set_defaults(run=_prices)

    add_keys_parser(commands, _add_config)

    add_spending(commands, _add_config)

    init = commands.add_parser("init", help="write a commented configuration for the keys that are set")
    init.add_argument("file", type=Path, nargs="?", default=Path("imagegate.toml"), help="(default: %(default)s)")
    init.add_argument("--force", action="store_true", help="replace a file that is there")
    init.set_defaults(run=_init)

    doctor = commands.add_parser("doctor", help="look at everything that the gateway needs, and say what to do")
    _add_config(doctor)
    doctor.set_defaults(run=_doctor)

    check = commands.add_parser("check", help="check a configuration file")
    check.add_argument("file", type=Path)
    check.add_argument("--live", action="store_true", help="also try keys, store and Redis; nothing is paid for")
    check.set_defaults(run=_check)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file (default: $IMAGEGATE_CONFIG, else imagegate.toml, else the providers whose keys are set)",
    )


def _seconds(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of seconds")
    return int(text)


def _port(text: str) -> int:
    """Read a port; 0 is any that is free. Event loops take larger numbers too, and listen elsewhere."""
    if not (text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; ports go from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and len(text) <= 4 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; write 1 or more")
    return int(text)


def _use_config(options: argparse.Namespace) -> None:
    """Hands the file on to the application, which worker processes make anew."""
    from imagegate.standalone import CONFIG_VARIABLE

    if options.config is not None:
        os.environ[CONFIG_VARIABLE] = str(options.config.absolute())


def _serve(options: argparse.Namespace) -> int:
    from imagegate.logger import get_logger
    from imagegate.server.announce import announce
    from imagegate.server.run import run
    from imagegate.standalone import GRACE_VARIABLE, OTEL_VARIABLE, find_config, grace, log_style
    from imagegate.telemetry.log_output import configure_logs

    _use_config(options)
    if options.grace is not None:
        os.environ[GRACE_VARIABLE] = str(options.grace)
    if options.otel:
        from imagegate.telemetry.otel_sdk import check

        check()
        os.environ[OTEL_VARIABLE] = "1"
    config = find_config()  # mistakes are reported before any process starts
    configure_logs(log_style())
    if options.workers > 1 and config.delivery.store.startswith("memory:"):
        raise ConfigError("delivery.store: memory:// is not shared; with --workers use file://")
    if options.workers > 1 and config.tasks.store == "memory://":
        get_logger().warning("tasks and idempotency keys are each worker's own; share them by tasks.store")
    announce(config, host=options.host, port=options.port)
    run(host=options.host, port=options.port, workers=options.workers, grace=grace(), limits=config.limits)
    return 0


def _demo(options: argparse.Namespace) -> int:
    try:
        from imagegate.demo.run import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("imagegate"):
            raise
        raise ConfigError(f"the demo needs {error.name}: pip install 'imagegate[demo]'") from None
    return run(port=options.port, folder=options.out, once=options.once)


def _send(options: argparse.Namespace) -> int:
    from imagegate.cli.send import make, save
    from imagegate.standalone import find_config
    from imagegate.telemetry.log_output import configure_logs

    _use_config(options)
    configure_logs("console", least=logging.ERROR)
    fields: dict[str, Any] = {"model": options.model, "prompt": options.prompt}
    fields |= {name: value for name in ("n", "size", "quality") if (value := getattr(options, name)) is not None}
    fields |= dict(_member(text) for text in options.set)
    made = asyncio.run(make(find_config(), fields))
    if made.changes:
        print(f"changed  {made.changes}", file=sys.stderr)
    if made.error:
        print(f"imagegate: {made.error}", file=sys.stderr)
        return 1
    try:
        for file in save(made.pictures, options.out, options.prompt):
            print(file)
    except OSError as error:
        raise ConfigError(f"{options.out}: the pictures cannot be written: {error.strerror or error}") from None
    return 0


def _member(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"--set {text}: write it as NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _explain(options: argparse.Namespace) -> int:
    from imagegate.cli.explain import explain
    from imagegate.standalone import find_config

    _use_config(options)
    body = _request_text(options.request)
    status, answer = asyncio.run(explain(find_config(), body.encode()))
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    return 0 if status == 200 else 1


def _request_text(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    if source.lstrip().startswith("{"):
        return source
    try:
        return Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from None


def _models(options: argparse.Namespace) -> int:
    if options.adapter is not None:
        from imagegate.cli.provider_page import provider_page
        from imagegate.registry import load_adapter

        print(provider_page(load_adapter(options.adapter)), end="")
        return 0
    from imagegate.config.model_contracts import contracts_of
    from imagegate.layers.models import model_list
    from imagegate.routing.catalog import Catalog
    from imagegate.standalone import find_config

    _use_config(options)
    config = find_config()
    listed: dict[str, Any] = model_list(Catalog(contracts_of(config), config.routes))
    if options.json:
        print(json.dumps(listed, indent=2))
        return 0
    width = max((len(model["id"]) for model in listed["data"]), default=0)
    for model in listed["data"]:
        size = model.get("contract", {}).get("size", {}).get("rule", "any")
        print(f"{model['id']:<{width}}  size: {size:<10}  {', '.join(model['upstreams'])}")
    return 0


def _prices(options: argparse.Namespace) -> int:
    from imagegate.cli.prices import price_lines, price_list
    from imagegate.standalone import find_config

    _use_config(options)
    listed = price_list(find_config())
    print(json.dumps(listed, indent=2) if options.json else "\n".join(price_lines(listed)))
    return 0


def _init(options: argparse.Namespace) -> int:
    from imagegate.cli.init import write

    write(options.file, os.environ, force=options.force)
    print(
        f"{options.file}: written. `imagegate doctor --config {options.file}` looks at it, `imagegate serve` runs it."
    )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from imagegate.cli.doctor import examine

    _use_config(options)
    return asyncio.run(examine())


def _check(options: argparse.Namespace) -> int:
    from imagegate.config.loader import load_config
    from imagegate.config.model_contracts import contracts_of, warnings_of

    config = load_config(options.file)
    contracts = contracts_of(config)
    models = sum(len(each) for each in contracts.values())
    print(f"{options.file}: good. Upstreams: {len(config.upstreams)}, models: {models}, routes: {len(config.routes)}.")
    for warning in warnings_of(config, contracts):
        print(f"warning: {warning}")
    if not options.live:
        return 0
    from imagegate.cli.live import check_live

    return 0 if asyncio.run(check_live(config)) else 1
