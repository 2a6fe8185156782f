"""``cirri sysdump``: everything that can be known of a cluster, in one archive that may be given away.

Most of it is what other commands print: each is run by itself, so that one that fails or hangs costs its own
page and no other.  Secret things are in no page: content of Secrets, private keys, passwords of the bus.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from cirri.cli.bus import LAB_PLAN, with_bus
from cirri.cli.context import Context, Target
from cirri.errors import CirriError
from cirri.model import BUCKETS

LIMIT_S = 30.0
"""How long one page may take."""
AT_ONCE = 3
LOG_BYTES = 2 << 20
"""Of the end of each log."""
HIDDEN = "REDACTED"
LISTS = (
    "version",
    "status",
    "config view",
    *(f"{noun} list" for noun in ("endpoint", "identity", "ip", "service", "node", "lbipam")),
    *("list nodes", "health status", "fqdn cache list", "fqdn names", "l7 listeners", "policy get"),
    *(f"bpf {noun} list" for noun in ("endpoint", "policy", "ipcache", "lb", "ct", "nat", "metrics")),
)
"""Commands whose output is kept."""
MACHINE = {
    "uname": ("uname", "-a"),
    "links": ("ip", "-details", "-json", "link"),
    "addresses": ("ip", "-json", "address"),
    "routes": ("ip", "-json", "route", "show", "table", "all"),
    "rules": ("ip", "-json", "rule"),
    "nft": ("nft", "list", "ruleset"),
}
_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.S)


class Page(NamedTuple):
    """One file of the archive."""

    name: str
    text: str
    fault: str = ""
    took_s: float = 0.0


def clean(text: str, secrets: Iterable[str]) -> str:
    """*text* without *secrets* and private keys."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _KEY.sub(HIDDEN, text)


def without_secrets(value: Any) -> Any:
    """*value*, an object or what holds some, with the content of Secrets hidden.  Pure."""
    if isinstance(value, Mapping):
        found = {str(name): without_secrets(each) for name, each in value.items()}
        return _hidden(found) if _is_secret(found) else found
    if isinstance(value, list | tuple):
        return [without_secrets(each) for each in value]
    return value


def _is_secret(found: Mapping[str, Any]) -> bool:
    return found.get("kind") == "Secret"


def _hidden(found: dict[str, Any]) -> dict[str, Any]:
    hidden = dict(found)
    for name in ("data", "stringData"):
        if isinstance(found.get(name), dict):
            hidden[name] = dict.fromkeys(found[name], HIDDEN)
    if isinstance(manifest := found.get("manifest"), dict):
        hidden["manifest"] = _hidden(manifest)
    if isinstance(about := found.get("metadata"), dict) and isinstance(about.get("annotations"), dict):
        # `kubectl apply` keeps the whole object there.
        hidden["metadata"] = about | {"annotations": dict.fromkeys(about["annotations"], HIDDEN)}
    return hidden


def passwords(context: Context) -> set[str]:
    """Every password of the bus that this machine's files know."""
    found = {context.password}
    try:
        plan = json.loads((Path(context.run_dir) / LAB_PLAN).read_text())
    except (OSError, ValueError):
        plan = {}
    for process in plan.get("processes", ()):
        found.add(process.get("env", {}).get("CIRRI_NATS_PASSWORD", ""))
    return found - {""}


def run(name: str, words: tuple[str, ...]) -> Page:
    """What a program prints."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Page(name, "", str(error), time.monotonic() - began)
    fault = "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"
    return Page(name, done.stdout, fault, time.monotonic() - began)


def programs(target: Target, context: Context, flows: int) -> dict[str, tuple[str, ...]]:
    """Page -> the program that prints it."""
    own = (sys.executable, "-m", "cirri.cli", "--context", target.name)
    found: dict[str, tuple[str, ...]] = {}
    for command in LISTS:
        name = command.replace(" ", "-")
        found[f"cirri/{name}.txt"] = (*own, *command.split())
    found["cirri/status.json"] = (*own, "status", "-o", "json")
    found["cirri/flows.jsonl"] = (*own, "observe", "--last", str(flows), "-o", "jsonpb")
    for place in sorted({*_networks(context)}):
        for name, words in MACHINE.items():
            found[f"network/{place}/{name}.txt"] = ("ip", "netns", "exec", place, *words) if place else words
    return found


def _networks(context: Context) -> Iterator[str]:
    """Network namespaces of the cluster's hosts."""
    if context.netns:
        yield context.netns
        base = context.netns.rpartition("-")[0]
        yield from (f"{base}-{node}" for node in context.bpffs)


def logs(context: Context) -> Iterator[Page]:
    """The end of every log in the cluster's run directory."""
    for path in sorted(Path(context.run_dir).rglob("*.log")) if context.run_dir else ():
        try:
            text = path.read_bytes()[-LOG_BYTES:].decode(errors="replace")
        except OSError as error:
            yield Page(f"logs/{path.name}", "", str(error))
        else:
            yield Page(f"logs/{path.relative_to(context.run_dir).as_posix().replace('/', '_')}", text)


def buckets(target: Target) -> list[Page]:
    """What the bus holds: every bucket, as JSON."""

    from cirri.kv import BucketMissing

    async def read(bus: Any) -> list[Page]:
        found = []
        for bucket in BUCKETS:
            began = time.monotonic()
            try:
                async with asyncio.timeout(LIMIT_S):
                    entries = await bus.entries(bucket)
            except BucketMissing:
                continue  # the service that makes it is not part of this cluster
            except (CirriError, TimeoutError) as error:
                found.append(Page(f"buckets/{bucket.name}.json", "", str(error) or "no answer"))
                continue
            values = {e.key: {"revision": e.revision, "value": msgspec.to_builtins(e.value)} for e in entries}
            text = json.dumps(without_secrets(values), indent=1, default=str)
            found.append(Page(f"buckets/{bucket.name}.json", text, took_s=time.monotonic() - began))
        return found

    try:
        return with_bus(target, read)
    except CirriError as error:
        return [Page("buckets/index.json", "", str(error))]


@click.command()
@click.option(
    "--output-filename", metavar="NAME", help="Of the archive, without .zip.  [default: cirri-sysdump-TIME]"
)
@click.option(
    "--hubble-flows-count", metavar="N", default=10_000, show_default=True, help="Flows that it has."
)
@click.pass_obj
def sysdump(target: Target, output_filename: str | None, hubble_flows_count: int) -> None:
    """Collect the state of the cluster into an archive for somebody who is to help.

    Content of Secrets, private keys and passwords of the bus are left out.  What could not be had is
    named in index.json, and does not stop the rest.
    """
    context = target.context()
    name = output_filename or f"cirri-sysdump-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    path, secrets = Path(f"{name.removesuffix('.zip')}.zip"), passwords(context)
    asked = programs(target, context, hubble_flows_count)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pages = [*pool.map(run, asked.keys(), asked.values()), *logs(context)]
    pages += buckets(target)  # last: it enters the cluster's network
    write(path, pages, secrets)
    failed = [page for page in pages if page.fault]
    for page in failed:
        click.echo(f"{page.name}: {clean(page.fault, secrets)}", err=True)
    click.echo(f"{path}: {len(pages) - len(failed)} of {len(pages)} pages")


def write(path: Path, pages: Iterable[Page], secrets: Iterable[str]) -> None:
    """The archive of *pages*, readable for its owner alone."""
    secrets = tuple(secrets)
    index = []
    path.touch(mode=0o600)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for page in pages:
            archive.writestr(page.name, clean(page.text, secrets))
            index.append(
                {"page": page.name, "fault": clean(page.fault, secrets), "seconds": round(page.took_s, 2)}
            )
        archive.writestr("index.json", json.dumps(index, indent=1))
