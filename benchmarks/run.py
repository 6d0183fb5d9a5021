"""What the gateway costs, beside floors and, with --peers, beside others: one table. README.md tells the method.

python benchmarks/run.py [--form smallest|short|long] [--only W1,W3] [--peers] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import driver
import peers
import servers
from about import about
from forms import FORMS
from rounds import FLOORS, OWN, Run
from servers import Proxy, Server
from table import Table


def mounted(rounds: int, table: Table) -> None:
    command = [sys.executable, str(Path(__file__).parent / "mount.py"), "--rounds", str(rounds)]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    table.facts["mount"] = seen["cost"]
    table.note(
        f"W6 a host's own route: {seen['without']:.1f} us CPU, with the gateway mounted {seen['with']:.1f} us: "
        f"{seen['cost']:.1f} us more (between medians {seen['median']:.1f})"
    )


def started(times: int, folder: Path, upstream: Server, table: Table) -> None:
    """Return the seconds from the command to the first answer to a generation."""
    took: list[float] = []
    for _ in range(times):
        own = Path(tempfile.mkdtemp(dir=folder))
        before = time.perf_counter()
        with servers.command(own, upstream.url) as server:
            status = servers.first_answer(server, upstream.url)
            took.append(time.perf_counter() - before)
        if status != 200:
            table.fail(f"start: the first answer was {status}")
    table.facts["start"] = sorted(took)[len(took) // 2]
    table.note(f"start to first answer: {min(took):.2f} s at the least, {max(took):.2f} s at the most of {times}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--form", choices=FORMS, default="short")
    parser.add_argument("--only", default="", help="workloads, such as W1,W3,rates,start")
    parser.add_argument(
        "--peers", action="store_true", help="nginx, Portkey's gateway and LiteLLM proxy, where installed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all figures there, too")
    parser.add_argument(
        "--provider-keep-alive",
        type=int,
        default=600,
        metavar="SECONDS",
        help="after which the provider closes idle connections",
    )
    parser.add_argument(
        "--pause", type=float, default=0, metavar="SECONDS", help="before each measurement; connections are idle then"
    )
    options = parser.parse_args()
    form, only = FORMS[options.form], set(filter(None, options.only.split(",")))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers end with us

    def chosen(name: str) -> bool:
        return not only or name in only

    table, before = Table(about(options.form)), time.monotonic()
    if table.about["load"] > 0.5:
        table.note("OTHERS ARE AT WORK HERE: these figures are not for publication")
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(servers.upstream(folder, options.provider_keep_alive))
        proxies = [*FLOORS, *OWN, *(_peers(table) if options.peers else [])]
        if driver.wrk() is None:
            table.note("wrk is not installed: small requests come from a client in Python, which costs each proxy more")
        bucket = None
        if program := servers.rclone():
            if chosen("W2"):
                s3 = stack.enter_context(servers.s3(folder, program))
                bucket = Proxy("imagegate S3", functools.partial(servers.gateway, s3=s3.url))
        else:
            table.note("W2 to S3 is left out: rclone is not installed")
        if chosen("W6"):
            mounted(form.mounts, table)
        if chosen("start"):
            started(form.starts, folder, upstream, table)
        Run(form, table, upstream, folder, options.pause).all(proxies, bucket, chosen)
    if options.provider_keep_alive != 600:
        table.note(f"the provider closed connections that were idle for {options.provider_keep_alive} s")
    table.about["seconds"] = round(time.monotonic() - before)
    print(table)
    if options.json:
        options.json.write_text(table.json())
    return 1 if table.failures else 0


def _peers(table: Table) -> Iterator[Proxy]:
    for peer in peers.PEERS:
        version = peer.version()
        if version is None:
            table.note(f"{peer.name} is left out: not installed (make bench-peers installs what can be)")
        else:
            table.about["versions"][peer.name] = version
            yield peer.proxy


if __name__ == "__main__":
    raise SystemExit(main())
