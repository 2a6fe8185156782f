"""The Tiltfile, evaluated as Tilt does (Starlark), with Tilt's functions noting what they are asked for.

The functions take what Tilt's take and no more: their signatures are those of its ``api/__init__.py``.
"""

# ruff: noqa: D102, PLR0917 - the functions are Tilt's, documented there
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import starlark
import yaml

ROOT = Path(__file__).parents[3]
TILTFILE = ROOT / "Tiltfile"
PRELUDE = """
config = struct(
    define_bool = _define, define_string = _define, define_string_list = _define, parse = _parse,
)
TRIGGER_MODE_AUTO, TRIGGER_MODE_MANUAL = "auto", "manual"
"""
Call = dict[str, Any]


class Tilt:
    """What a Tiltfile asked for: by function, the arguments of each call, by name.

    *given* are its own arguments (``tilt up -- --name value``), *local* answers to its commands.
    """

    def __init__(self, given: dict[str, Any], local: Callable[[list[str]], str]) -> None:
        self.calls: dict[str, list[Call]] = {}
        self.given, self._local, self._defined = given, local, set[str]()
        self.objects: list[dict[str, Any]] = []
        self._evaluate()

    def _evaluate(self) -> None:
        dialect = starlark.Dialect.extended()
        dialect.enable_types = starlark.DialectTypes.DISABLE
        dialect.enable_f_strings = False
        known = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
        module = starlark.Module()
        for name in (n for n in dir(self) if n.startswith("tilt_")):
            module.add_callable(name.removeprefix("tilt_"), getattr(self, name))
        for where, text in (("prelude", PRELUDE), ("Tiltfile", TILTFILE.read_text())):
            starlark.eval(module, starlark.parse(where, text, dialect), known)
        assert self.given.keys() <= self._defined, "an argument that is not defined"

    def _note(self, function: str, call: dict[str, Any]) -> None:
        call.pop("self")
        self.calls.setdefault(function, []).append(call)

    def of(self, function: str, key: str) -> dict[str, Call]:
        """The calls of *function*, by their argument *key*."""
        return {call[key]: call for call in self.calls.get(function, [])}

    # what Tilt offers ----------------------------------------------------------------------

    def tilt__define(self, name: str, args: bool = False, usage: str = "") -> None:
        self._defined.add(name)

    def tilt__parse(self) -> dict[str, Any]:
        return self.given

    def tilt_read_yaml(self, path: str, default: Any = None) -> Any:
        return yaml.safe_load((ROOT / path).read_text())

    def tilt_decode_yaml_stream(self, yaml: str) -> list[Any]:
        return _documents(yaml)

    def tilt_encode_yaml_stream(self, objs: list[Any]) -> str:
        return json.dumps(objs)

    def tilt_listdir(self, directory: str, recursive: bool = False) -> list[str]:
        assert recursive
        return [str(path) for path in (ROOT / directory).rglob("*") if path.is_file()]

    def tilt_watch_file(self, file_path: str) -> None:
        assert (ROOT / file_path).exists()

    def tilt_local(self, command: list[str], quiet: bool = False, echo_off: bool = False) -> str:
        return self._local(command)

    def tilt_k8s_yaml(self, yaml: str, allow_duplicates: bool = False) -> None:
        self.objects += json.loads(yaml)

    def tilt_docker_build(
        self,
        ref: str,
        context: str,
        build_args: dict[str, str] = {},  # noqa: B006 - as Tilt has it
        dockerfile: str = "Dockerfile",
        live_update: list[Any] = [],  # noqa: B006
        ignore: list[str] = [],  # noqa: B006
        only: list[str] = [],  # noqa: B006
    ) -> None:
        self._note("docker_build", locals())

    def tilt_fall_back_on(self, files: list[str]) -> Call:
        return {"step": "fall_back_on", "files": files}

    def tilt_sync(self, local_path: str, remote_path: str) -> Call:
        return {"step": "sync", "local": local_path, "remote": remote_path}

    def tilt_run(self, cmd: str, trigger: list[str] = [], echo_off: bool = False) -> Call:  # noqa: B006
        return {"step": "run", "cmd": cmd}

    def tilt_port_forward(
        self,
        local_port: int,
        container_port: int = 0,
        name: str = "",
        link_path: str = "",
        host: str = "",
    ) -> Call:
        return {"local": local_port, "container": container_port, "name": name}

    def tilt_k8s_resource(
        self,
        workload: str = "",
        new_name: str = "",
        port_forwards: list[Any] = [],  # noqa: B006
        resource_deps: list[str] = [],  # noqa: B006
        auto_init: bool = True,
        labels: list[str] = [],  # noqa: B006
    ) -> None:
        self._note("k8s_resource", locals())

    def tilt_exec_action(self, command: list[str]) -> list[str]:
        return command

    def tilt_probe(
        self,
        initial_delay_secs: int = 0,
        timeout_secs: int = 1,
        period_secs: int = 10,
        exec: list[str] = [],  # noqa: A002, B006
    ) -> Call:
        return {"exec": exec}

    def tilt_local_resource(
        self,
        name: str,
        cmd: list[str] = [],  # noqa: B006
        deps: list[str] = [],  # noqa: B006
        trigger_mode: str = "auto",
        resource_deps: list[str] = [],  # noqa: B006
        ignore: list[str] = [],  # noqa: B006
        auto_init: bool = True,
        serve_cmd: list[str] = [],  # noqa: B006
        labels: list[str] = [],  # noqa: B006
        readiness_probe: Any = None,
    ) -> None:
        self._note("local_resource", locals())


def _documents(text: str) -> list[Any]:
    return [one for one in yaml.safe_load_all(text) if one]
