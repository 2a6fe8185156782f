"""The lab's internet: what its name servers, resolver and web sites are told.  Pure, but :func:`write_files`.

::

    unbound  192.168.3.4:53, fd00:192:168:3::4:53      the resolver, for everybody
      └── knot  127.0.0.53:53     every name there is; zone cdn.example.net changes all the time
    nginx    ports 80 and 443 of every address in INTERNET_RANGES, HTTP/1.1 and HTTP/2
    rotation programs/rotation.py tells knot new addresses of the CDN, by dynamic updates (RFC 2136)

A certificate authority is made with each lab; its pods trust it, and no other.
"""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

from cirri.errors import CirriError
from cirri.lab.files import make_folder
from cirri.lab.topology import Host

NAMESERVER = "127.0.0.53"
TTL_S = 30
SITES = {
    "github.com": 10,
    "api.github.com": 11,
    "support.github.com": 12,
    "raw.githubusercontent.com": 13,
    "cilium.io": 14,
    "docs.cilium.io": 15,
    "quay.io": 16,
    "example.com": 17,
    "www.example.com": 17,
    "example.org": 18,
    "one.one.one.one": 19,
}
"""Name -> number of its addresses, one of each family."""
ONE_FAMILY = {"ipv4.example.net": "203.0.113.20", "ipv6.example.net": "2001:db8:113::15"}
ALIASES = {
    "status.github.com": "cilium.io",
    "assets.github.com": "www.cdn.example.net",
    "media.github.com": "assets.github.com",
}
REDIRECTS = {"support.github.com": "https://support.github.com/hc/en-us"}
"""Sites that answer 302, as the real ones do."""
CDN = "cdn.example.net"
"""Zone of the names whose addresses change."""
CDN_NAMES = ("www", *(f"n{number}" for number in range(31)))
MANY = "many"
"""Its name in :data:`CDN` with more addresses than fit a datagram."""
CDN_POOL = range(64, 255)
"""Numbers of the addresses that names of the CDN have by turns."""
MANY_ADDRESSES = 100
CA_CERTIFICATE = "ca.crt"
NEW_CERTIFICATE = (
    *("openssl", "req", "-x509", "-days", "365", "-nodes"),
    *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
)


class NoCertificate(CirriError):
    """openssl made no certificate."""

    def __init__(self, words: str) -> None:
        super().__init__(f"openssl made no certificate: {words.strip()}")


def address4(number: int) -> str:
    """The web site's IPv4 address."""
    return f"203.0.113.{number}"


def address6(number: int) -> str:
    """The web site's IPv6 address."""
    return str(ip_address(f"2001:db8:113::{number:x}"))


def records() -> dict[str, str]:
    """Zone -> its file."""
    head = f"@ {TTL_S} SOA ns.example.net. hostmaster.example.net. 1 7200 1800 86400 1\n"
    head += f"@ {TTL_S} NS ns.example.net.\n"
    world = [f"ns.example.net. {TTL_S} A {NAMESERVER}", f"{CDN}. {TTL_S} NS ns.example.net."]
    for name, number in SITES.items():
        world += [f"{name}. {TTL_S} A {address4(number)}", f"{name}. {TTL_S} AAAA {address6(number)}"]
    for name, address in ONE_FAMILY.items():
        world.append(f"{name}. {TTL_S} {'AAAA' if ':' in address else 'A'} {address}")
    world += [f"{name}. {TTL_S} CNAME {target}." for name, target in ALIASES.items()]
    many = [f"{MANY} 1 A {address4(n)}\n{MANY} 1 AAAA {address6(n)}" for n in CDN_POOL[:MANY_ADDRESSES]]
    return {".": head + "\n".join(world) + "\n", CDN: head + "\n".join(many) + "\n"}


def knot_conf(folder: Path) -> str:
    """Configuration of knotd."""
    zones = "".join(
        f"  - domain: {zone}\n    file: {folder / file}\n{'    acl: update' if zone == CDN else ''}\n"
        for zone, file in _files().items()
    )
    return f"""\
server:
    rundir: {folder}
    listen: {NAMESERVER}@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {folder}
log:
  - target: stderr
    any: warning
acl:
  - id: update
    address: 127.0.0.0/8
    action: update
template:
  - id: default
    journal-content: none
    zonefile-load: whole
    zonefile-sync: -1
zone:
{zones}"""


def _files() -> dict[str, str]:
    return {zone: f"{'root' if zone == '.' else zone}.zone" for zone in records()}


def unbound_conf(host: Host) -> str:
    """Configuration of unbound: it believes knot, and answers everybody."""
    return f"""\
server:
    interface: {host.ipv4}
    interface: {host.ipv6}
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    username: ""
    chroot: ""
    directory: "/"
    pidfile: ""
    use-syslog: no
    log-time-ascii: yes
    verbosity: 0
    module-config: "iterator"
    num-threads: 1
    num-queries-per-thread: 4096
    outgoing-range: 512
    incoming-num-tcp: 256
    so-rcvbuf: 4m
    do-not-query-localhost: no
    qname-minimisation: no
    cache-max-negative-ttl: 1
stub-zone:
    name: "."
    stub-addr: {NAMESERVER}
remote-control:
    control-enable: no
"""


def nginx_conf(folder: Path) -> str:
    """Configuration of nginx: one site that says its name, and those that lead elsewhere."""
    redirects = "".join(
        f"    server {{ listen [::]:80; listen [::]:443 ssl; server_name {name}; return 302 {target}; }}\n"
        for name, target in REDIRECTS.items()
    )
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    keepalive_timeout 3600;
    server_tokens off;
    default_type text/plain;
    ssl_certificate {folder}/site.crt;
    ssl_certificate_key {folder}/site.key;
{temporary}\
    server {{
        listen [::]:80 default_server ipv6only=off;
        listen [::]:443 default_server ipv6only=off ssl http2;
        return 200 "This is $host: $request_method $request_uri\\n";
    }}
{redirects}}}
"""


def names() -> list[str]:
    """What the web sites' certificate is for."""
    return [*SITES, *ONE_FAMILY, *ALIASES, f"*.{CDN}"]


def programs(folder: Path) -> dict[str, tuple[str, ...]]:
    """Name of the process -> its command."""
    return {
        "internet-names": ("knotd", "-c", str(folder / "knot.conf")),
        "internet-resolver": ("unbound", "-d", "-c", str(folder / "unbound.conf")),
        "internet-web": ("nginx", "-c", str(folder / "nginx.conf"), "-e", "stderr"),
        "internet-cdn": (sys.executable, "-m", "cirri.lab.programs.rotation"),
    }


def write_files(folder: Path, host: Host) -> None:
    """Everything the programs read.  Raises: NoCertificate."""
    make_folder(folder)
    texts = {
        "knot.conf": knot_conf(folder),
        "unbound.conf": unbound_conf(host),
        "nginx.conf": nginx_conf(folder),
    }
    texts |= {file: records()[zone] for zone, file in _files().items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    _certificates(folder)


def _certificates(folder: Path) -> None:
    alternatives = ",".join(f"DNS:{name}" for name in names())
    authority = "/CN=Cirri lab CA", "-keyout", "ca.key", "-out", CA_CERTIFICATE
    site = (
        *("/CN=github.com", "-addext", f"subjectAltName={alternatives}"),
        *("-addext", "basicConstraints=critical,CA:FALSE", "-CA", CA_CERTIFICATE, "-CAkey", "ca.key"),
        *("-keyout", "site.key", "-out", "site.crt"),
    )
    for arguments in (authority, site):
        done = subprocess.run(
            [*NEW_CERTIFICATE, "-subj", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NoCertificate(done.stderr)
