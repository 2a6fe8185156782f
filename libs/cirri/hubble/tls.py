"""Certificates from files, which may be replaced while they are used."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from cirri.errors import CirriError

_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


class BadCertificate(CirriError):
    """The file *path* is of no use, because *why*."""

    hint = "Renew the certificate; files are read again when they change"

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"certificate {path} {why}")


class TlsFiles(NamedTuple):
    """PEM files of one side."""

    certificate: Path | None = None
    """Chain, own first; None on the client's side: it does not say who it is."""
    key: Path | None = None
    ca: Path | None = None
    """Whom to believe: on the server's side, clients must then show a certificate (mTLS)."""


Complain = Callable[[BadCertificate], None]


class _Read(NamedTuple):
    certificate: bytes | None
    key: bytes | None
    ca: bytes | None


def read(files: TlsFiles, now: float) -> _Read:
    """What is in *files* at *now* (Unix s).  Raises: BadCertificate."""
    found = []
    for path in files:
        try:
            found.append(None if path is None else path.read_bytes())
        except OSError as error:
            raise BadCertificate(path or Path(), f"cannot be read: {error.strerror}") from None
    if files.certificate is not None:
        if files.key is None:
            raise BadCertificate(files.certificate, "has no key file beside it")
        check(files.certificate, found[0] or b"", now)
    return _Read(*found)


def check(path: Path, pem: bytes, now: float) -> None:
    """That the first certificate of *pem* holds at *now*.  Raises: BadCertificate."""
    try:
        first, last = validity(pem)
    except (ValueError, IndexError, UnicodeDecodeError):
        raise BadCertificate(path, "is no certificate in PEM") from None
    if now > last:
        raise BadCertificate(path, f"expired at {_date(last)}")
    if now < first:
        raise BadCertificate(path, f"is not valid before {_date(first)}")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def validity(pem: bytes) -> tuple[float, float]:
    """First and last second (Unix) of the first certificate in *pem*.  Raises: ValueError, IndexError."""
    text = pem.decode()
    begin, end = ssl.PEM_HEADER, ssl.PEM_FOOTER
    body = text[text.index(begin) : text.index(end) + len(end)]
    der = ssl.PEM_cert_to_DER_cert(body)
    # RFC 5280, 4.1: Certificate > tbsCertificate > [version,] serial, algorithm, issuer, validity
    (_, certificate), *_ = _elements(der)
    (_, signed), *_ = _elements(certificate)
    parts = [part for part in _elements(signed) if part[0] != _VERSION]
    _, dates = parts[3]
    first, last = (_time(kind, raw.decode()) for kind, raw in _elements(dates))
    return first, last


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of DER elements beside each other."""
    while data:
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start])
        yield tag, data[start : start + length]
        data = data[start + length :]


def _time(kind: int, text: str) -> float:
    form = "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()


def server_credentials(files: TlsFiles, complain: Complain) -> Any:
    """For a server; each handshake has what is in *files* by then.  Raises: BadCertificate.

    What is of no use then goes to *complain*, and the older one goes on.
    """
    reload = _Reload(files, complain)
    return grpc.dynamic_ssl_server_credentials(
        reload.configuration, reload.changed, require_client_authentication=files.ca is not None
    )


class _Reload:
    def __init__(self, files: TlsFiles, complain: Complain) -> None:
        self._files, self._complain = files, complain
        self._stamp = self._stat()
        self.configuration = self._configuration()

    def _stat(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in self._files if path is not None and path.exists())

    def _configuration(self) -> Any:
        content = read(self._files, time.time())
        return grpc.ssl_server_certificate_configuration([(content.key, content.certificate)], content.ca)

    def changed(self) -> Any:
        """What is new; None: nothing is, or it is of no use, and the old one goes on."""
        stamp = self._stat()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            return self._configuration()
        except BadCertificate as error:
            self._complain(error)
            return None


def channel_credentials(files: TlsFiles) -> Any:
    """For a client, with what is in *files* now.  Raises: BadCertificate."""
    content = read(files, time.time())
    return grpc.ssl_channel_credentials(content.ca, content.key, content.certificate)
