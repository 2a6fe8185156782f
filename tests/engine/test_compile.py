"""The compiler: named ports, requirements, contradictions, what is only watched, what is refused."""

import pytest

from cirri.engine import Compiler, EngineConfig, InvalidPolicy
from cirri.model import SubjectPolicy
from cirri.testing.policies import Cluster, pod, policies

WEB, API, DB = (pod("shop", {"app": app}) for app in ("web", "api", "db"))


def named(number: int, app: str = "api") -> tuple[str, ...]:
    return (*pod("shop", {"app": app}), f"port:tcp/http={number}")


def rule(section: str, app: str = "api", name: str = "p") -> str:
    return (
        f"metadata: {{name: {name}}}\n"
        f"spec: {{endpointSelector: {{matchLabels: {{app: {app}}}}}, {section}}}\n---\n"
    )


PORT = "toPorts: [{ports: [{port: HTTP, protocol: TCP}]}]"
PEERS = {
    "web": WEB,
    "db": DB,
    "eight": named(8080),
    "nine": named(9090),
    "none": API,
    "web-eight": named(8080, "web"),
}


@pytest.mark.parametrize(
    ("section", "flow", "expected"),
    [
        (f"ingress: [{{{PORT}}}]", "web -> eight TCP/8080", "allow"),
        (f"ingress: [{{{PORT}}}]", "web -> eight TCP/9090", "drop/D"),
        (f"ingress: [{{{PORT}}}]", "web -> eight UDP/8080", "drop/D"),
        (f"ingress: [{{{PORT}}}]", "web -> nine TCP/9090", "allow"),
        (f"ingress: [{{{PORT}}}]", "web -> none TCP/8080", "drop/D"),
        (f"ingressDeny: [{{{PORT}}}], ingress: [{{fromEntities: [all]}}]", "web -> eight TCP/8080", "drop/X"),
        (f"ingressDeny: [{{{PORT}}}], ingress: [{{fromEntities: [all]}}]", "web -> none TCP/8080", "allow"),
        (f"egress: [{{{PORT}}}]", "none -> eight TCP/8080", "allow"),
        (f"egress: [{{{PORT}}}]", "none -> eight TCP/9090", "drop/D"),
        (f"egress: [{{{PORT}}}]", "none -> nine TCP/9090", "allow"),
        (f"egress: [{{{PORT}}}]", "none -> web TCP/8080", "drop/D"),
        (f"egress: [{{{PORT}}}]", "none -> world TCP/8080", "drop/D"),
        (
            f"egress: [{{toEndpoints: [{{matchLabels: {{app: web}}}}], {PORT}}}]",
            "none -> web-eight TCP/8080",
            "allow",
        ),
        (
            f"egress: [{{toEndpoints: [{{matchLabels: {{app: web}}}}], {PORT}}}]",
            "none -> eight TCP/8080",
            "drop/D",
        ),
        (
            f"egressDeny: [{{{PORT}}}], egress: [{{toEntities: [all]}}]",
            "none -> nine TCP/9090",
            "drop/X",
        ),
        (f"egressDeny: [{{{PORT}}}], egress: [{{toEntities: [all]}}]", "none -> nine TCP/8080", "allow"),
    ],
)
def test_named_ports(section: str, flow: str, expected: str) -> None:
    assert Cluster(PEERS, policies(rule(section))).ask(flow) == expected


def test_named_ports_of_kubernetes() -> None:
    text = """
kind: NetworkPolicy
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress, Egress]
  ingress: [{ports: [{port: http}]}]
  egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]
"""
    cluster = Cluster(PEERS, policies(text))
    assert cluster.ask("web -> nine TCP/9090") == "allow"
    assert cluster.ask("web -> nine TCP/8080") == "drop/D"
    assert cluster.ask("none -> web-eight TCP/8080") == "allow"
    assert cluster.ask("none -> web-eight TCP/9090") == "drop/D"


def test_numbers_of_named_ports_come_and_go() -> None:
    cluster = Cluster({"none": API}, policies(rule(f"egress: [{{{PORT}}}]")))
    compiler = cluster.compiler

    def numbers() -> list[int]:
        compiler.flush()
        return sorted(one.port for one in compiler.policies[cluster.numbers["none"]].egress.rules)

    assert numbers() == []
    compiler.add_identity(1000, named(8080))
    compiler.add_identity(1001, named(9090))
    assert numbers() == [8080, 9090]
    compiler.add_identity(1002, named(9090, "web"))
    assert not compiler.flush().policies.keys() - {1002}
    compiler.remove_identity(1000)
    assert numbers() == [9090]
    compiler.remove_identity(1001)
    assert numbers() == [9090]
    compiler.add_identity(1002, WEB)
    assert numbers() == []


REQUIRES = "{fromRequires: [{matchLabels: {tier: back}}]}"
TIERS = {
    "db": DB,
    "back": pod("shop", {"app": "api", "tier": "back"}),
    "front": pod("shop", {"app": "web", "tier": "front"}),
    "other": pod("ops", {"app": "api", "tier": "back"}),
}
ALLOWS = (
    "ingress: [{fromEndpoints: [{matchLabels: {app: api}}, {matchLabels: {app: web}}]}, "
    "{fromEntities: [health]}]"
)
EVERY_POD = """
kind: NetworkPolicy
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}}]}]}
"""


@pytest.mark.parametrize("split", [True, False])
def test_requirements_narrow_what_other_objects_allow(split: bool) -> None:
    """Not entities, and not what another object denies."""
    requires = rule(f"ingress: [{REQUIRES}]", "db", "requires")
    cluster = Cluster(TIERS, policies(rule(ALLOWS, "db") + (requires if split else "") + EVERY_POD))
    wide, narrow = ("drop/D", "allow") if split else ("allow", "allow")
    assert cluster.ask("front -> db TCP/1") == wide
    assert cluster.ask("back -> db TCP/1") == narrow
    assert cluster.ask("health -> db TCP/1") == "allow"
    assert cluster.ask("other -> db TCP/1") == wide


def test_sets_that_a_requirement_made_go_with_it() -> None:
    cluster = Cluster(TIERS, policies(rule(ALLOWS, "db")))
    before = set(cluster.compiler.sets)
    (requires,) = policies(rule(f"ingress: [{REQUIRES}]", "db", "requires"))
    cluster.compiler.update_resource(requires)
    delta = cluster.compiler.flush()
    policy = delta.policies[cluster.numbers["db"]]
    assert {one.selector for one in policy.ingress.rules} <= cluster.compiler.sets.keys()
    assert delta.selectors
    cluster.compiler.delete_resource("CiliumNetworkPolicy.shop.requires._")
    assert cluster.compiler.flush().removed_selectors == delta.selectors.keys()
    assert set(cluster.compiler.sets) == before


HTTP = 'toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: GET}]}}]'
KAFKA = 'toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {kafka: [{topic: a}]}}]'


def test_who_meets_a_contradiction_keeps_what_it_had() -> None:
    cluster = Cluster({"api": API, "db": DB}, policies(rule(f"ingress: [{{fromEndpoints: [{{}}], {HTTP}}}]")))
    compiler, api = cluster.compiler, cluster.numbers["api"]
    before = compiler.policies[api]
    named_by = {one.selector for one in before.ingress.rules}
    for one in policies(
        rule(f"ingress: [{{fromEntities: [world], {HTTP}}}]")
        + rule(f"ingress: [{{fromEntities: [world], {KAFKA}}}]", name="q")
    ):
        compiler.update_resource(one)
    delta = compiler.flush()
    assert set(compiler.conflicts) == {api}
    assert "http" in compiler.conflicts[api]
    assert "kafka" in compiler.conflicts[api]
    policy = delta.policies[api]
    assert policy.error == compiler.conflicts[api]
    assert (policy.ingress, policy.egress, policy.origins) == (before.ingress, before.egress, before.origins)
    # No object names its peers any more; their sets are still there, and followed.
    assert named_by <= compiler.sets.keys()
    compiler.add_identity(1000, WEB)
    assert compiler.flush().selectors.keys() & named_by
    compiler.delete_resource("CiliumNetworkPolicy.shop.q._")
    delta = compiler.flush()
    assert (compiler.conflicts, delta.policies[api].error) == ({}, "")
    assert named_by & delta.removed_selectors


def test_who_has_nothing_to_keep_is_isolated() -> None:
    text = rule(f"ingress: [{{{HTTP}}}]") + rule(f"ingress: [{{{KAFKA}}}]", name="q")
    cluster = Cluster({"api": API, "db": DB}, policies(text))
    assert set(cluster.compiler.conflicts) == {cluster.numbers["api"]}
    assert cluster.ask("db -> api TCP/80") == "drop/D"
    assert cluster.ask("api -> db TCP/80") == "drop/D"
    assert cluster.ask("host -> api TCP/80") == "allow"
    # The same number with other labels is somebody else, who has nothing to keep either.
    cluster.compiler.add_identity(cluster.numbers["db"], (*API, "k8s:x=y"))
    cluster.compiler.flush()
    assert cluster.ask("host -> db TCP/81") == "allow"
    assert cluster.ask("health -> db TCP/81") == "drop/D"
    cluster.compiler.remove_identity(cluster.numbers["api"])
    cluster.compiler.flush()
    assert set(cluster.compiler.conflicts) == {cluster.numbers["db"]}


AUDIT = "metadata: {name: watched, annotations: {policy.cirri.io/audit-mode: enabled}}"


def watched(section: str, app: str = "api") -> str:
    return rule(section, app).replace("metadata: {name: p}", AUDIT)


def compiled(text: str, config: EngineConfig | None = None) -> SubjectPolicy:
    return Cluster({"api": API}, policies(text), config).compiler.policies[256]


def test_what_is_watched_is_not_in_force() -> None:
    policy = compiled(rule("ingress: [{fromEntities: [world]}]") + watched("ingress: [{}], egress: [{}]"))
    assert policy.ingress.enforced
    assert not policy.egress.enforced
    assert policy.audit_ingress == policy.ingress
    assert policy.audit_egress is not None
    assert policy.audit_egress.enforced
    assert {one.name for one in policy.origins} == {"p", "watched", ""}


def test_who_is_not_watched() -> None:
    policy = compiled(rule("ingress: [{}]") + watched("ingress: [{}]", "db"))
    assert (policy.audit_ingress, policy.audit_egress) == (None, None)


def test_sets_of_what_is_watched_are_there() -> None:
    text = watched("ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]")
    cluster = Cluster(
        {"api": API}, policies(text + watched(f"ingress: [{REQUIRES}]").replace("watched", "w2"))
    )
    policy = cluster.compiler.policies[256]
    assert policy.audit_ingress is not None
    assert {one.selector for one in policy.audit_ingress.rules} <= cluster.compiler.sets.keys()


def test_a_contradiction_with_what_is_watched_leaves_the_rest_in_force() -> None:
    policy = compiled(rule(f"ingress: [{{{HTTP}}}]") + watched(f"ingress: [{{{KAFKA}}}]"))
    assert [one.redirect for one in policy.ingress.rules if one.redirect] == ["http"]
    assert (policy.audit_ingress, policy.audit_egress) == (None, None)
    assert "kafka" in policy.error


def test_the_earliest_time_by_which_a_person_must_confirm() -> None:
    text = "".join(
        rule("ingress: [{}]", name=f"p{n}").replace(
            "}\n", f", annotations: {{cirri.io/confirm-by: '1970-01-01T00:0{n}:00Z'}}}}\n", 1
        )
        for n in (3, 2)
    )
    assert compiled(text + rule("ingress: [{}]", name="sure")).confirm_by == 120.0
    assert compiled(rule("ingress: [{}]")).confirm_by == 0.0


NODES = rule("ingress: [{fromNodes: [{}]}]")
BY_LABELS = EngineConfig(nodes_by_labels=True)


def test_what_is_refused_is_read_again_when_the_configuration_changes() -> None:
    compiler = Compiler()
    compiler.add_identity(256, API)
    with pytest.raises(InvalidPolicy):
        compiler.update_resource(policies(NODES)[0])
    assert list(compiler.invalid) == ["CiliumNetworkPolicy.shop.p._"]
    assert compiler.configure(BY_LABELS) == {}
    compiler.flush()
    assert compiler.policies[256].ingress.enforced
    assert list(compiler.configure(EngineConfig())) == ["CiliumNetworkPolicy.shop.p._"]
    compiler.flush()
    assert compiler.policies[256].ingress.enforced, "what it meant before goes on to hold"
    compiler.delete_resource("CiliumNetworkPolicy.shop.p._")
    compiler.flush()
    assert (dict(compiler.invalid), compiler.policies[256].ingress.enforced) == ({}, False)


def test_an_update_that_is_refused_stays_so_until_it_is_corrected() -> None:
    compiler = Compiler()
    compiler.add_identity(256, API)
    compiler.update_resource(policies(rule("ingress: [{}]"))[0])
    with pytest.raises(InvalidPolicy):
        compiler.update_resource(policies(rule("ingres: [{}], egress: [{}]"))[0])
    compiler.flush()
    assert compiler.policies[256].ingress.enforced
    compiler.update_resource(policies(rule("egress: [{}]"))[0])
    compiler.flush()
    assert not compiler.policies[256].ingress.enforced
    assert not compiler.invalid


def test_the_local_cluster_is_meant_unless_another_is_named() -> None:
    far = tuple(text.replace("cluster=default", "cluster=far") for text in WEB)
    peers = {"api": API, "web": WEB, "far": far}
    text = rule("ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]")
    for config, expected in (({}, "drop/D"), ({"policy-default-local-cluster": "false"}, "allow")):
        cluster = Cluster(peers, policies(text), EngineConfig.of(config))
        assert cluster.ask("far -> api TCP/1") == expected
        assert cluster.ask("web -> api TCP/1") == "allow"
    named_ = text.replace("app: web", "app: web, io.cilium.k8s.policy.cluster: far")
    assert Cluster(peers, policies(named_)).ask("far -> api TCP/1") == "allow"


def test_a_new_identity_touches_only_the_sets_it_joins() -> None:
    text = "".join(
        rule(f"ingress: [{{fromEndpoints: [{{matchLabels: {{app: b{n}}}}}]}}]", f"a{n}", f"p{n}")
        for n in range(20)
    )
    compiler = Cluster({"api": API}, policies(text)).compiler
    compiler.add_identity(400, pod("shop", {"app": "b7"}))
    delta = compiler.flush()
    assert [one.text.partition(",")[0] for one in delta.selectors.values()] == ["any:app=b7"]
    assert list(delta.policies) == [400]


def test_nothing_to_say_when_nothing_changed() -> None:
    objects = policies(rule(ALLOWS))
    cluster = Cluster({"api": API}, objects)
    for one in objects:
        cluster.compiler.update_resource(one)
    cluster.compiler.add_identity(256, API)
    delta = cluster.compiler.flush()
    assert (delta.selectors, delta.policies) == ({}, {})
