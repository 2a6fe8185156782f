"""What an allow asks of a connection beside its ports: requests, TLS, a listener, authentication."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cirri.engine.config import EngineConfig
from cirri.engine.names import server_name_complaint
from cirri.engine.requests import Requests, canonical, members, read_requests, read_secret, texts
from cirri.engine.rule import Findings, Payload
from cirri.model.policy import Auth, Redirect

MODES: tuple[Auth, ...] = tuple(mode for mode in get_args(Auth) if mode)
"""Of ``authentication``, the stricter ones later."""

CLUSTER_CONFIG, NAMESPACED_CONFIG = "CiliumClusterwideEnvoyConfig", "CiliumEnvoyConfig"

_PARSERS = "requests of this protocol are not supported by this version: what is sent there is dropped"
_NODES = "what nodes themselves ask is not looked at by this version: it is dropped"
_LISTENERS = "listeners are not supported by this version"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule stands, as far as that decides what it may say."""

    direction: Literal["ingress", "egress"]
    config: EngineConfig
    deny: bool = False
    namespace: str = ""
    """Of the policy; "": it is cluster-wide."""
    node: bool = False
    """It selects nodes, not endpoints."""


def port_payload(rule: dict[str, Any], path: str, out: Findings, place: Place) -> Payload:
    """What the port rule *rule* of an allow asks for."""
    said = rule.get("rules")
    requests = read_requests({} if said is None else said, f"{path}.rules", out, namespace=place.namespace)
    terminating = _tls(rule.get("terminatingTLS"), f"{path}.terminatingTLS", out, place)
    originating = _tls(rule.get("originatingTLS"), f"{path}.originatingTLS", out, place)
    server_names = _server_names(rule.get("serverNames"), f"{path}.serverNames", out)
    listener, priority = _listener(rule.get("listener"), f"{path}.listener", out, place)
    if requests.kind:
        _check_requests(rule, requests, path, out, place)
        if listener:
            out.fault(f"{path}.listener", f"cannot be combined with rules.{requests.field}")
        if server_names and not terminating:
            out.fault(
                f"{path}.serverNames",
                f"with rules.{requests.field} needs terminatingTLS: encrypted requests cannot be read",
            )
    kind: Redirect = requests.kind
    if not kind:
        kind = "listener" if listener else "tls" if terminating or originating or server_names else ""
    return Payload(
        kind=kind,
        requests=requests.entries,
        parser=requests.parser,
        server_names=server_names,
        terminating=terminating,
        originating=originating,
        listener=listener,
        listener_priority=priority,
    )


def authentication(item: dict[str, Any], path: str, out: Findings, place: Place) -> Auth:
    """What ``authentication`` of the rule *item* at *path* says; "" if nothing."""
    value = item.get("authentication")
    if value is None or place.deny:
        return ""
    said = members(value, ("mode",), f"{path}.authentication", out).get("mode")
    for mode in MODES:
        if said == mode:
            return mode
    out.fault(f"{path}.authentication.mode", f"{said!r} is not one of {', '.join(MODES)}")
    return ""


def _check_requests(rule: dict[str, Any], found: Requests, path: str, out: Findings, place: Place) -> None:
    where = f"{path}.rules.{found.field}"
    if found.kind in {"kafka", "generic"}:
        out.gap(where, _PARSERS)
    elif place.node:
        out.gap(where, _NODES)
    if not place.config.l7_proxy:
        out.fault(where, "needs the proxy, which enable-l7-proxy: false in cirri-config switches off")
    if found.kind == "dns" and place.direction == "ingress":
        out.fault(where, "is for egress only: DNS is observed where queries leave")
    elif place.node and (found.kind != "dns" or place.direction == "ingress"):
        allowed = "only dns" if place.direction == "egress" else "no rule on requests"
        out.fault(where, f"{allowed} is possible for nodes in this direction")
    if not rule.get("ports"):
        out.fault(where, "needs ports")
    for index, port in _objects(rule.get("ports")):
        one = f"{path}.ports[{index}]"
        number, end = port.get("port"), port.get("endPort")
        if number == "0":
            out.fault(f"{one}.port", f"rules.{found.field} needs one port, not every one")
        if found.kind != "dns" and str(port.get("protocol") or "ANY").upper() != "TCP":
            out.fault(f"{one}.protocol", f"must be TCP with rules.{found.field}")
        if (
            found.kind == "dns"
            and str(number).isdecimal()
            and isinstance(end, int)
            and end > int(str(number))
        ):
            out.fault(f"{one}.endPort", "a range is not possible with rules.dns")


def _objects(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in *value*, if it is a list, with their places."""
    for index, each in enumerate(value if isinstance(value, list) else ()):
        if isinstance(each, dict):
            yield index, each


def _tls(value: Any, path: str, out: Findings, place: Place) -> str:
    if value is None:
        return ""
    context = members(value, ("secret", "certificate", "privateKey", "trustedCA"), path, out)
    secret = read_secret(context.pop("secret", {}), f"{path}.secret", out, place.namespace)
    return canonical({**texts(context, path, out), "secret": secret})


def _server_names(value: Any, path: str, out: Findings) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        out.fault(path, "must be a list of at least one name")
        return ()
    for index, name in enumerate(value):
        if not isinstance(name, str):
            out.fault(f"{path}[{index}]", f"must be a string, not {name!r}")
        elif wrong := server_name_complaint(name):
            out.fault(f"{path}[{index}]", wrong)
    return tuple(sorted({str(name).lower() for name in value}))


def _listener(value: Any, path: str, out: Findings, place: Place) -> tuple[str, int]:
    """``KIND/NAME/LISTENER`` and the priority, 0 if it has none; "" without a listener."""
    if value is None:
        return "", 0
    out.gap(path, _LISTENERS)
    if place.direction == "ingress":
        out.fault(path, "is possible in egress only")
    listener = members(value, ("envoyConfig", "name", "priority"), path, out)
    priority = listener.pop("priority", None)
    if priority is not None and (type(priority) is not int or not 1 <= priority <= 100):
        out.fault(f"{path}.priority", f"{priority!r} is not a number from 1 to 100")
    config = members(listener.pop("envoyConfig", {}), ("kind", "name"), f"{path}.envoyConfig", out)
    config = texts(config, f"{path}.envoyConfig", out)
    listener = texts(listener, path, out)
    kind = config.get("kind") or (NAMESPACED_CONFIG if place.namespace else CLUSTER_CONFIG)
    if kind not in {NAMESPACED_CONFIG, CLUSTER_CONFIG}:
        out.fault(f"{path}.envoyConfig.kind", f"{kind!r} is not one of {NAMESPACED_CONFIG}, {CLUSTER_CONFIG}")
    for where, given in ((f"{path}.envoyConfig.name", config), (f"{path}.name", listener)):
        if "name" not in given:
            out.fault(where, "is required")
    return f"{kind}/{config.get('name', '')}/{listener.get('name', '')}", priority or 0
