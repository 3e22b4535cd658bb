"""The operator's rules: every overlay keeps them, and every one of them can be broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s import operator_rules as rules
from tests.k8s.rendering import Manifests, render

Breaking = Callable[[Any, Any], None]
"""Given the RayService and its cluster's specification."""


def _ray(group: Any) -> Any:
    return group["template"]["spec"]["containers"][0]


def _annotate(service: Any, name: str) -> None:
    service["metadata"].setdefault("annotations", {})[name] = "true"


def _variable(group: Any, name: str, value: str = "1") -> None:
    _ray(group)["env"].append({"name": name, "value": value})


BREAKING: list[tuple[rules.Rule, Breaking]] = [
    (rules.name_fits, lambda s, c: s["metadata"].update(name="p" * 48)),
    (rules.name_fits, lambda s, c: s["metadata"].update(name="9plato")),
    (
        rules.autoscaler_restarts_nothing,
        lambda s, c: c["headGroupSpec"]["template"]["spec"].update(restartPolicy="Always"),
    ),
    (
        rules.autoscaler_restarts_nothing,
        lambda s, c: c["workerGroupSpecs"][1]["template"]["spec"].update(restartPolicy="OnFailure"),
    ),
    (
        rules.autoscaler_version_is_said_once,
        lambda s, c: _variable(c["headGroupSpec"], "RAY_enable_autoscaler_v2"),
    ),
    (rules.autoscaler_version_is_said_once, lambda s, c: c["autoscalerOptions"].pop("version")),
    (rules.autoscaler_version_is_said_once, lambda s, c: c.pop("enableInTreeAutoscaling")),
    (
        rules.fault_tolerance_is_set_in_one_place,
        lambda s, c: _variable(c["headGroupSpec"], "RAY_REDIS_ADDRESS"),
    ),
    (
        rules.fault_tolerance_is_set_in_one_place,
        lambda s, c: _variable(c["headGroupSpec"], "REDIS_PASSWORD"),
    ),
    (
        rules.fault_tolerance_is_set_in_one_place,
        lambda s, c: c["headGroupSpec"]["rayStartParams"].update({"redis-password": "x"}),
    ),
    (
        rules.fault_tolerance_is_set_in_one_place,
        lambda s, c: _annotate(s, "ray.io/ft-enabled"),
    ),
    (
        rules.fault_tolerance_is_set_in_one_place,
        lambda s, c: _annotate(s, "ray.io/external-storage-namespace"),
    ),
    (rules.fault_tolerance_is_set_in_one_place, lambda s, c: c.pop("gcsFaultToleranceOptions")),
    (rules.replicas_are_bounded, lambda s, c: c["workerGroupSpecs"][0].pop("minReplicas")),
    (rules.replicas_are_bounded, lambda s, c: c["workerGroupSpecs"][1].pop("maxReplicas")),
    (rules.replicas_are_bounded, lambda s, c: c["workerGroupSpecs"][1].update(replicas=99)),
    (
        rules.probes_are_the_operators,
        lambda s, c: _ray(c["workerGroupSpecs"][0]).update(readinessProbe={}),
    ),
    (
        rules.old_clusters_outlive_their_runs,
        lambda s, c: s["spec"].update(rayClusterDeletionDelaySeconds=310),
    ),
    (
        rules.old_clusters_outlive_their_runs,
        lambda s, c: s["spec"].pop("rayClusterDeletionDelaySeconds"),
    ),
    (
        rules.resources_are_said_once,
        lambda s, c: c["workerGroupSpecs"][0].update(resources={"CPU": "2"}),
    ),
    (
        rules.labels_are_not_parameters,
        lambda s, c: c["headGroupSpec"]["rayStartParams"].update(labels="a=b"),
    ),
    (rules.ray_is_the_version_of_the_image, lambda s, c: c.update(rayVersion="2.9.0")),
    (rules.ray_is_the_version_of_the_image, lambda s, c: c.pop("rayVersion")),
    (
        rules.names_of_services_are_the_operators,
        lambda s, c: c["headGroupSpec"].update(headService={"metadata": {"name": "mine"}}),
    ),
    (rules.upgrades_are_of_a_known_kind, lambda s, c: s["spec"].pop("upgradeStrategy")),
    (
        rules.groups_can_be_told_apart,
        lambda s, c: c["workerGroupSpecs"][0].update(groupName="decoders"),
    ),
    (
        rules.parts_outlast_the_death_of_a_node,
        lambda s, c: _variable(c["headGroupSpec"], "RAY_health_check_timeout_ms", "10000"),
    ),
    (
        rules.parts_outlast_the_death_of_a_node,
        lambda s, c: s["spec"].update(
            serveConfigV2=s["spec"]["serveConfigV2"].replace("node_attempts: 8", "node_attempts: 4")
        ),
    ),
    (rules.the_head_has_no_work, lambda s, c: c["headGroupSpec"]["rayStartParams"].clear()),
]
RULES = sorted({rule for rule, _ in BREAKING}, key=lambda rule: rule.__name__)


def test_every_rule_is_here() -> None:
    written = {
        rule
        for name, rule in vars(rules).items()
        if callable(rule) and getattr(rule, "__module__", "") == rules.__name__
    }
    assert set(RULES) == written


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_manifests_keep_the_rule(manifests: Manifests, rule: rules.Rule) -> None:
    assert list(rule(manifests)) == []


@pytest.mark.parametrize(("rule", "break_it"), BREAKING, ids=lambda one: one.__name__)
def test_a_breach_of_the_rule_is_found(rule: rules.Rule, break_it: Breaking) -> None:
    manifests = render("gpu")
    break_it(manifests.service, manifests.cluster)
    assert len(list(rule(manifests))) == 1
