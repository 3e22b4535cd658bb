"""Who may talk to whom by the NetworkPolicies: enough of Kubernetes' rules for those used here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Labels = Mapping[str, str]


def selects(selector: Any, labels: Labels) -> bool:
    """Whether a label selector takes something with these labels."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        if expression["operator"] != "In":
            raise NotImplementedError(expression["operator"])
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


@dataclass(frozen=True)
class Peer:
    """A pod, in the namespace of the policies or in another."""

    labels: Labels
    namespace: str


@dataclass(frozen=True)
class Network:
    """The policies of one namespace."""

    namespace: str
    policies: list[Any]

    def allows(self, source: Peer, target: Peer, port: int) -> bool:
        """Whether a TCP connection is let through at both ends."""
        return self._lets("Egress", source, target, port) and self._lets(
            "Ingress", target, source, port
        )

    def _lets(self, direction: str, pod: Peer, other: Peer, port: int) -> bool:
        rules, far = ("egress", "to") if direction == "Egress" else ("ingress", "from")
        policies = [
            policy["spec"]
            for policy in self.policies
            if pod.namespace == self.namespace
            and direction in policy["spec"]["policyTypes"]
            and selects(policy["spec"]["podSelector"], pod.labels)
        ]
        # Without a policy for this direction everything is let through.
        return not policies or any(
            self._is_peer(rule.get(far), other) and _is_port(rule.get("ports"), port)
            for policy in policies
            for rule in policy.get(rules) or []
        )

    def _is_peer(self, peers: Any, other: Peer) -> bool:
        if not peers:
            return True
        for peer in peers:
            if "ipBlock" in peer:
                continue
            if "namespaceSelector" in peer:
                name = {"kubernetes.io/metadata.name": other.namespace}
                here = selects(peer["namespaceSelector"], name)
            else:
                here = other.namespace == self.namespace
            if here and selects(peer.get("podSelector", {}), other.labels):
                return True
        return False


def _is_port(ports: Any, port: int) -> bool:
    if not ports:
        return True
    return any(one["port"] == port for one in ports if one.get("protocol", "TCP") == "TCP")
