"""The plugin passes everything through unharmed and knows what to do when nobody answers."""

import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "services/cirri/cni"
PLUGIN = FOLDER / "build/cirri-cni"


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    subprocess.run(["make", "-s", "-C", FOLDER], check=True)


class Service:
    """Answers one call with fixed bytes and keeps what it was sent."""

    def __init__(self, path: Path, reply: Callable[[bytes], bytes]) -> None:
        self.path, self.heard = path, b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._reply = reply
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            size = int.from_bytes(peer.recv(4, socket.MSG_WAITALL), "big")
            self.heard = peer.recv(size, socket.MSG_WAITALL)
            peer.sendall(self._reply(self.heard))

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


def framed(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "big") + data


def answer(code: int, stdout: str) -> Callable[[bytes], bytes]:
    body = json.dumps({"code": code, "stdout": stdout}, ensure_ascii=False, separators=(",", ":"))
    return lambda _: framed(body)


@contextmanager
def serving(folder: Path, reply: Callable[[bytes], bytes]) -> Iterator[Service]:
    service = Service(folder / "cni.sock", reply)
    try:
        yield service
    finally:
        service.close()


def call(
    folder: Path, command: str, config: dict[str, Any] | bytes | None = None, **env: str
) -> tuple[int, bytes]:
    fields = {"cniVersion": "1.1.0", "name": "n", "type": "cirri-cni", "socket": str(folder / "cni.sock")}
    text = config if isinstance(config, bytes) else json.dumps({**(config or {}), **fields}).encode()
    done = subprocess.run(
        [PLUGIN],
        input=text,
        env={"CNI_COMMAND": command, **env},
        capture_output=True,
        check=False,
        timeout=10,
    )
    assert done.stderr == b""
    return done.returncode, done.stdout


TEXTS = [
    "plain",
    'quote " backslash \\ slash /',
    "newline \n tab \t return \r bell \x07 delete \x7f",
    "ünïcödé 漢字 😀",
    '{"code":7,"stdout":"inner"}',
    "a" * 200_000,
]


@pytest.mark.parametrize("text", TEXTS, ids=["plain", "quotes", "controls", "unicode", "json inside", "long"])
def test_text_passes_both_ways_unharmed(tmp_path: Path, text: str) -> None:
    config = {"args": {"text": text}}
    with serving(tmp_path, answer(3, text)) as service:
        code, output = call(tmp_path, "ADD", config, CNI_ARGS=text[:1000], OTHER="not passed")
    heard = json.loads(service.heard)
    assert heard["env"] == {"CNI_COMMAND": "ADD", "CNI_ARGS": text[:1000]}
    assert json.loads(heard["config"])["args"] == {"text": text}
    assert (code, output.decode()) == (3, text)


def test_only_the_outermost_socket_counts(tmp_path: Path) -> None:
    nested = {
        "args": {"socket": "/nowhere"},
        "x": ["socket", "/nowhere"],
        "y": "socket",
        "z": {"a": {"b": []}},
    }
    with serving(tmp_path, answer(0, "ok")):
        assert call(tmp_path, "ADD", nested) == (0, b"ok")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0\0",
        framed("{}"),
        b"\0\0\0\x50" + b"{}",
        framed('{"stdout":"x","code":0}'),
        framed('{"code":0}'),
    ],
    ids=["nothing", "half a length", "no code", "too short", "wrong order", "no output"],
)
def test_a_broken_answer_is_try_again(tmp_path: Path, reply: bytes) -> None:
    with serving(tmp_path, lambda _: reply):
        code, output = call(tmp_path, "ADD")
    assert code == json.loads(output)["code"] == 11


@pytest.mark.parametrize(
    ("command", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50), ("", 11)], ids=str
)
def test_nobody_answers(tmp_path: Path, command: str, code: int) -> None:
    got, output = call(tmp_path, command)
    said = json.loads(output)
    assert got == said["code"] == code
    assert said == {
        "cniVersion": "1.1.0",
        "code": code,
        "msg": f"the datapath service of this node does not answer at {tmp_path}/cni.sock",
    }
    assert not (tmp_path / "deleteQueue").exists()


def test_version_needs_nobody(tmp_path: Path) -> None:
    code, output = call(tmp_path, "VERSION", b'{"cniVersion":"1.0.0"}')
    assert code == 0
    assert json.loads(output) == {
        "cniVersion": "1.0.0",
        "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }
    assert call(tmp_path, "VERSION", b"")[0] == 0


def test_a_deletion_is_queued_whole(tmp_path: Path) -> None:
    for container in ("a", 'b"\n'):
        assert call(tmp_path, "DEL", {"args": {"n": 1}}, CNI_CONTAINERID=container) == (0, b"")
    queued = [json.loads(p.read_bytes()) for p in sorted((tmp_path / "deleteQueue").iterdir())]
    assert [one["env"]["CNI_CONTAINERID"] for one in queued] == ["a", 'b"\n']
    assert json.loads(queued[0]["config"])["args"] == {"n": 1}


def test_a_deletion_that_cannot_be_queued_is_told(tmp_path: Path) -> None:
    (tmp_path / "deleteQueue").write_text("a file in the way")
    code, output = call(tmp_path, "DEL")
    assert code == 11
    assert json.loads(output)["msg"].endswith("the request could not be queued: Not a directory")


def test_it_is_small_and_needs_no_library() -> None:
    source = (FOLDER / "cirri-cni.c").read_text()
    assert len(source.splitlines()) < 350
    assert os.path.getsize(PLUGIN) < 1_000_000
    assert 3 not in segments(PLUGIN.read_bytes()), "PT_INTERP: it would need the host's libc"


def segments(elf: bytes) -> list[int]:
    """Types of an ELF-64 file's program headers (elf.h)."""
    (start,), (size, count) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<HH", elf, 54)
    return [struct.unpack_from("<I", elf, start + size * n)[0] for n in range(count)]
