"""Pods and what runs them: strict in what Cirri reads, all of Kubernetes' other fields accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cirri.manifests.schema import (
    BOOLEAN,
    TEXT,
    Fault,
    Fields,
    Integer,
    Items,
    MapOf,
    Text,
    unread,
)
from cirri.manifests.schemas.meta import SELECTOR, STATUS, TEMPLATE_METADATA, metadata
from cirri.manifests.words import LABEL_NAME, LABELS, PORT, PORT_NAME, PROTOCOL, SUBDOMAIN_NAME

_CONTAINER_PORT = Fields(
    {
        "containerPort": PORT,
        "name": PORT_NAME,
        "protocol": PROTOCOL,
        "hostPort": Integer(0, 65535),
        "hostIP": TEXT,
    },
    required=("containerPort",),
    defaults={"protocol": "TCP"},
)

_ENV = Fields({"name": Text(low=1), "value": TEXT, **unread("valueFrom")}, required=("name",))

CONTAINER = Fields(
    {
        "name": LABEL_NAME,
        "image": Text(low=1),
        "command": Items(TEXT),
        "args": Items(TEXT),
        "env": Items(_ENV),
        # Two containers may use one name: then it stands for the port of the first.
        "ports": Items(_CONTAINER_PORT, key="name"),
        **unread(
            "envFrom imagePullPolicy lifecycle livenessProbe readinessProbe resizePolicy resources "
            "restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce "
            "terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir"
        ),
    },
    required=("name", "image"),
)


POD_SPEC = Fields(
    {
        "containers": Items(CONTAINER, low=1, key="name"),
        "initContainers": Items(CONTAINER, key="name"),
        "nodeName": SUBDOMAIN_NAME,
        "nodeSelector": LABELS,
        "hostNetwork": BOOLEAN,
        "serviceAccountName": SUBDOMAIN_NAME,
        "serviceAccount": SUBDOMAIN_NAME,
        "hostname": LABEL_NAME,
        "subdomain": LABEL_NAME,
        "restartPolicy": Text(choices=("Always", "OnFailure", "Never")),
        "terminationGracePeriodSeconds": Integer(),
        **unread(
            "activeDeadlineSeconds affinity automountServiceAccountToken dnsConfig dnsPolicy "
            "enableServiceLinks ephemeralContainers hostAliases hostIPC hostPID hostUsers "
            "hostnameOverride imagePullSecrets os overhead preemptionPolicy priority "
            "priorityClassName readinessGates resourceClaims resources runtimeClassName "
            "schedulerName schedulingGates securityContext setHostnameAsFQDN "
            "shareProcessNamespace tolerations topologySpreadConstraints volumes workloadRef"
        ),
    },
    required=("containers",),
    defaults={"restartPolicy": "Always"},
)

POD = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("Pod", namespaced=True),
        "spec": POD_SPEC,
        "status": STATUS,
    },
    required=("metadata", "spec"),
)


def _selects_template(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """The selector must select the pods that the template makes, or they would pile up."""
    selector = spec["selector"]
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield ("selector",), "must not be empty: it would select every pod of the namespace"
        return
    labels = spec["template"].get("metadata", {}).get("labels", {})
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            yield (
                ("selector", "matchLabels", key),
                f'"{value}" does not match spec.template.metadata.labels, which have {_has(labels, key)}',
            )


def _has(labels: Mapping[str, str], key: str) -> str:
    return f'"{labels[key]}"' if key in labels else f"no {key}"


DEPLOYMENT = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("Deployment", namespaced=True),
        "spec": Fields(
            {
                "replicas": Integer(),
                "selector": SELECTOR,
                "template": Fields(
                    {"metadata": TEMPLATE_METADATA, "spec": POD_SPEC}, required=("metadata", "spec")
                ),
                **unread("strategy minReadySeconds revisionHistoryLimit paused progressDeadlineSeconds"),
            },
            required=("selector", "template"),
            defaults={"replicas": 1},
            rules=(_selects_template,),
        ),
        "status": STATUS,
    },
    required=("metadata", "spec"),
)

NAMESPACE = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("Namespace", namespaced=False, name=LABEL_NAME),
        "spec": Fields({"finalizers": Items(TEXT)}),
        "status": STATUS,
    },
    required=("metadata",),
)

NODE = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("Node", namespaced=False),
        "spec": Fields(
            {
                "podCIDR": TEXT,
                "podCIDRs": Items(TEXT),
                "unschedulable": BOOLEAN,
                **unread("providerID taints configSource externalID"),
            }
        ),
        "status": STATUS,
    },
    required=("metadata",),
)

CONFIG_MAP = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("ConfigMap", namespaced=True),
        "data": MapOf(TEXT),
        "binaryData": MapOf(TEXT),
        "immutable": BOOLEAN,
    },
    required=("metadata",),
)
