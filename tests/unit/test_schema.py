import json

from helpers import ROOT

from dprobust.schema import json_schema

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.json"


def test_the_committed_schema_is_that_of_the_typed_settings():
    assert SCHEMA.read_text(encoding="utf-8") == json_schema(), "run `make schema`"


def test_every_key_is_described_and_no_object_takes_any():
    schema = json.loads(json_schema())
    for name, rules in {"Study": schema, **schema["$defs"]}.items():
        assert rules.get("description"), f"{name} has no description"
        if rules.get("type") != "object":
            continue
        assert rules["additionalProperties"] is False, f"{name} takes any key"
        for key, rule in rules["properties"].items():
            target = schema["$defs"][rule["$ref"].rpartition("/")[2]] if "$ref" in rule else {}
            assert rule.get("description") or target.get("description"), f"{name}.{key} has no description"
            assert "default" in rule or "const" in rule or key in rules["required"], f"{name}.{key}: no default"
