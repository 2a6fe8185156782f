import pytest

from cirri.engine import Requirement, Selector
from cirri.engine.select import LabelSet, require, tokens

LABELS = LabelSet(["k8s:app=web", "k8s:tier=front", "node:tier=edge", "reserved:host"])


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        (require("k8s", "app", "In", ["web"]), True),
        (require("k8s", "app", "In", ["api", "db"]), False),
        (require("any", "app", "In", ["web"]), True),
        (require("node", "app", "In", ["web"]), False),
        (require("any", "tier", "In", ["edge"]), True),
        (require("k8s", "tier", "In", ["edge"]), False),
        (require("any", "tier", "NotIn", ["edge"]), False),
        (require("k8s", "tier", "NotIn", ["edge"]), True),
        (require("any", "absent", "NotIn", ["x"]), True),
        (require("any", "host", "Exists"), True),
        (require("k8s", "host", "Exists"), False),
        (require("any", "absent", "Exists"), False),
        (require("any", "absent", "DoesNotExist"), True),
        (require("reserved", "host", "DoesNotExist"), False),
    ],
    ids=str,
)
def test_requirement(requirement: Requirement, holds: bool) -> None:
    assert requirement.holds(LABELS) == holds


WEB = require("k8s", "app", "In", ["web"])
NOT_BACK = require("any", "tier", "NotIn", ["back", "data"])


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (Selector.of([]), "*"),
        (Selector.of(), "none"),
        (Selector.of([WEB]), "k8s:app=web"),
        (Selector.of([WEB, NOT_BACK]), "any:tier notin (back,data), k8s:app=web"),
        (Selector.of([require("any", "app", "In", ["b", "a"])]), "any:app in (a,b)"),
        (Selector.of([require("any", "x", "DoesNotExist")]), "!any:x"),
        (Selector.label("reserved:world", "reserved:host"), "reserved:host or reserved:world"),
    ],
    ids=str,
)
def test_canonical_text(selector: Selector, text: str) -> None:
    assert selector.text == text


def test_order_and_repeats_mean_nothing() -> None:
    one, other = Selector.of([WEB, NOT_BACK], []), Selector.of([], [NOT_BACK, WEB, WEB])
    assert one == other
    assert one.key == other.key
    assert len(one.key) == 16


@pytest.mark.parametrize(
    ("selector", "anchors"),
    [
        (Selector.of([WEB, NOT_BACK]), {"k8s:app=web"}),
        (Selector.of([NOT_BACK]), {""}),
        (
            Selector.of([require("k8s", "io.kubernetes.pod.namespace", "In", ["shop"]), WEB]),
            {"k8s:app=web"},
        ),
        (Selector.of([require("k8s", "io.kubernetes.pod.namespace", "In", ["shop"])]),
         {"k8s:io.kubernetes.pod.namespace=shop"}),
        (Selector.of([require("any", "app", "Exists")]), {"any:app"}),
    ],
)  # fmt: skip
def test_anchors_are_among_the_tokens_of_what_is_selected(selector: Selector, anchors: set[str]) -> None:
    assert selector.anchors == anchors
    labels = LabelSet(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"])
    assert selector.matches(labels)
    assert anchors & tokens(labels)
