"""Validation against a CustomResourceDefinition, as strict as `kubectl apply` is.

The API server prunes fields that a schema does not know, and kubectl refuses them by default; the
schema itself does not say so. Here every object that lists its properties has no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

Schema = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def strict(schema: Schema) -> Schema:
    """A JSON schema of the same meaning that refuses unknown fields."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    # An annotation in OpenAPI, and not one that JSON Schema knows.
    made.pop("format", None)
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if made.pop("nullable", False):
        made["type"] = [made["type"], "null"]
    if "properties" in schema:
        made["properties"] = {name: strict(one) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = strict(schema["items"])
    return made


def validator(definition: Path, version: str) -> Draft202012Validator:
    """A validator for one version of a custom resource."""
    loaded = yaml.load(definition.read_text(), Loader=_LOADER)
    (schema,) = [
        one["schema"]["openAPIV3Schema"]
        for one in loaded["spec"]["versions"]
        if one["name"] == version
    ]
    return Draft202012Validator(strict(schema))


def complaints(validator: Draft202012Validator, document: Any) -> list[str]:
    """What is wrong with a document."""
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
