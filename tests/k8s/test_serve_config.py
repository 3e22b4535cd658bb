"""The Serve configuration in a RayService is what `serve build` gives for the same settings."""

from __future__ import annotations

import pytest
from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.build_app import build_app
from ray.serve.deployment import deployment_to_schema
from ray.serve.schema import ServeDeploySchema

from deployments.serve_config import PATCH, POD_SETTINGS, patch, read_settings
from plato.settings import Settings
from tests.k8s.rendering import K8S, OVERLAYS, Manifests


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_patch_is_made_of_the_settings_beside_it(overlay: str) -> None:
    folder = K8S / "overlays" / overlay
    assert (folder / PATCH).read_text() == patch(read_settings(folder)), (
        f"make it again: python -m deployments.serve_config {folder.relative_to(K8S.parent)}"
    )


def test_serve_takes_it(manifests: Manifests) -> None:
    schema = ServeDeploySchema.model_validate(manifests.serve_config)
    assert [application.name for application in schema.applications] == ["plato"]


def test_the_arguments_are_settings_of_the_service_alone(manifests: Manifests) -> None:
    given = manifests.application["args"]
    assert Settings(**given).decoder_resource
    assert not POD_SETTINGS & given.keys()


def test_what_the_builder_makes_of_the_arguments_is_what_is_written(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Serve's controller does it: import, build with the arguments, compare name by name."""
    monkeypatch.setenv("PLATO_REDIS_URL", "redis://context-store:6379/0")
    application = manifests.application
    builder = import_attr(application["import_path"])
    built = build_app(
        call_user_app_builder_with_args_if_necessary(builder, application["args"]), name="plato"
    )
    made = {
        one.name: deployment_to_schema(one).model_dump(exclude_unset=True, mode="json")
        for one in built.deployments
    }
    written = {one["name"]: one for one in application["deployments"]}
    assert made.keys() == written.keys()
    for name, deployment in written.items():
        for option, value in deployment.items():
            assert made[name][option] == value, f"{name}: {option}"


def test_what_it_names_can_be_imported(manifests: Manifests) -> None:
    named = []
    for deployment in manifests.application["deployments"]:
        router = deployment.get("request_router_config", {}).get("request_router_class")
        scaling = deployment.get("autoscaling_config", {})
        policy = scaling.get("policy", {}).get("policy_function")
        named += [path for path in (router, policy) if path]
    assert "deployments.routing.PlacedRouter" in named
    for path in named:
        assert callable(import_attr(path))


def test_settings_that_belong_to_the_place_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "settings.yaml").write_text("redis_url: redis://:a-password@somewhere\n")
    with pytest.raises(ValueError, match="environment of the pods"):
        read_settings(folder)
    (folder / "settings.yaml").write_text("upstream_api_key: a-key\n")
    with pytest.raises(ValueError, match="environment of the pods"):
        read_settings(folder)
    (folder / "settings.yaml").write_text("decoder: 3\n")
    with pytest.raises(ValueError, match="decoder"):
        read_settings(folder)
