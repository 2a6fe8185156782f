"""Tracing policies on this node: what is served, what is not and why; the program that serves them all."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from cirri.layout import SENSOR_POLICIES
from cirri.maps import MapMissing, detach, open_pinned, program_info
from cirri.maps.attach import attach_raw_tracepoint
from cirri.maps.libbpf import object_get
from cirri.model import Resource
from cirri.model.runtimeevents import PodRef, PolicyState
from cirri.runtime.logs import Log
from cirri.sensor.compiler import EXIT, Order
from cirri.sensor.statuses import title_of
from cirri.tracing import Hook, Policy, Unserved, hook_number, policy_of, selects, tells_results
from cirri.tracing.generate import MOST_POLICIES

COMPILE_S = 60.0
"""How long the compiler may take."""
PROGRAM, LINK = "prog_policies", "link_policies"


class Policies:
    """Those of one node; *folder* has the pins."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder, self._log = folder, log
        self.served: tuple[Policy, ...] = ()
        """In the order of their bits."""
        self._hooks: dict[int, tuple[Policy, Hook]] = {}
        self._wanted: tuple[Resource, ...] | None = None
        self._states: dict[str, PolicyState] = {}
        self._pods: dict[int, PodRef] = {}
        """By cgroup."""
        self._map = open_pinned(folder, SENSOR_POLICIES)

    @property
    def states(self) -> list[PolicyState]:
        """Of all policies, by name."""
        return [self._states[name] for name in sorted(self._states)]

    def hook(self, number: int) -> tuple[Policy, Hook] | None:
        """Whose a record is; None: of a policy that is gone."""
        return self._hooks.get(number)

    async def want(self, resources: Iterable[Resource]) -> None:
        """Serve these and no others; what cannot be served is said in :attr:`states`."""
        # Of each only what it asks for: conditions that are written to it change nothing.
        asked = (replace(each, manifest={"spec": each.manifest.get("spec")}) for each in resources)
        wanted = tuple(sorted(asked, key=lambda each: (each.kind, each.namespace, each.name)))
        if wanted == self._wanted:
            return
        self._wanted = wanted
        served, states = _understood(wanted)
        why = ""
        if served:
            ends = tells_results([policy for _, policy in served])
            why = await self._compile(tuple(resource for resource, _ in served), ends=ends)
        else:
            self._remove("")
            self._remove(EXIT)
        for _, policy in served:
            states[policy.title] = _state(policy, why)
        self._states = states
        self.served = () if why else tuple(policy for _, policy in served)
        self._hooks |= {hook_number(hook): (policy, hook) for policy in self.served for hook in policy.hooks}
        for cgroup, pod in self._pods.items():
            self._mark(cgroup, pod)
        for state in states.values():
            self._log.info("tracing policy", policy=state.name, state=state.state, why=state.why)

    def meet(self, cgroup: int, pod: PodRef | None) -> None:
        """A process of *pod* is in *cgroup*."""
        if pod is not None and cgroup and cgroup not in self._pods:
            self._pods[cgroup] = pod
            self._mark(cgroup, pod)

    def forget(self, alive: Iterable[int]) -> None:
        """Of cgroups only these are left."""
        for gone in self._pods.keys() - set(alive):
            del self._pods[gone]
            self._map.delete(gone)

    def close(self) -> None:
        """Give the map back; the program goes on."""
        self._map.close()

    def _mark(self, cgroup: int, pod: PodRef) -> None:
        bits = sum(
            1 << place
            for place, policy in enumerate(self.served)
            if policy.pods is not None
            and policy.namespace in ("", pod.namespace)
            and selects(policy.pods, pod.labels)
        )
        self._map.put(cgroup, bits)

    def _remove(self, suffix: str) -> None:
        detach(self._folder / f"{LINK}{suffix}")
        detach(self._folder / f"{PROGRAM}{suffix}")

    async def _compile(self, policies: tuple[Resource, ...], *, ends: bool) -> str:
        """Have a program for *policies* run, and one at the *ends* of calls; why there is none, or ""."""
        order = msgspec.json.encode(Order(str(self._folder), str(self._folder / PROGRAM), policies))
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cirri.sensor.compiler"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(COMPILE_S):
                _, said = await child.communicate(order)
        except TimeoutError:
            child.kill()
            return f"the compiler took more than {COMPILE_S:.0f} s"
        if child.returncode:
            return (said.decode(errors="replace").strip().splitlines() or ["the compiler was killed"])[-1]
        if ends:  # first: it waits for what the other keeps
            self._attach(EXIT, "sys_exit")
        self._attach("", "sys_enter")
        if not ends:
            self._remove(EXIT)
        return ""

    def _attach(self, suffix: str, hook: str) -> None:
        with suppress(MapMissing):
            program = object_get(self._folder / f"{PROGRAM}{suffix}")
            try:
                attach_raw_tracepoint(program, hook, self._folder / f"{LINK}{suffix}")
                self._log.info("policies run", program=program_info(program).tag, hook=hook)
            finally:
                os.close(program)


def _understood(
    resources: Iterable[Resource],
) -> tuple[list[tuple[Resource, Policy]], dict[str, PolicyState]]:
    """(those that can be served, what is to be said of the others)."""
    served: list[tuple[Resource, Policy]] = []
    states: dict[str, PolicyState] = {}
    for resource in resources:
        title = title_of(resource)
        try:
            policy = policy_of(resource)
            if len(served) == MOST_POLICIES:
                raise Unserved("spec", f"more than {MOST_POLICIES} policies are not served")
        except Unserved as error:
            states[title] = PolicyState(name=title, state="not served", why=str(error))
            continue
        served.append((resource, policy))
    return served, states


def _state(policy: Policy, why: str) -> PolicyState:
    hooks: Mapping[str, str] = {
        hook.function: "sys_enter, sys_exit" if hook.returns else "sys_enter" for hook in policy.hooks
    }
    return PolicyState(name=policy.title, state="failed" if why else "enabled", why=why, hooks=dict(hooks))
