"""Write the JSON schema of the configuration from the models that check it.

Run it after a change of the models: ``python config/schemas/make.py``.
"""

import json
from pathlib import Path
from typing import Any

from morebench.config import Config, Resources
from morebench.registry import METHODS

HERE = Path(__file__).parent
FILE = HERE / "config.schema.json"


def schema() -> dict[str, Any]:
    """Return the schema of the configuration file.

    The models leave a method's entry open, since its parameters are those of the registry;
    the schema says what every entry may hold.
    """
    content = Config.model_json_schema()
    content["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    content["$defs"]["Resources"] = Resources.model_json_schema()
    content["$defs"]["Method"] = {
        "description": "Parameters of a registered method, or of a variant of one.",
        "type": ["object", "null"],
        "properties": {
            "method": {"enum": sorted(METHODS), "description": "the key by default"},
            "title": {"type": "string"},
            "resources": {"$ref": "#/$defs/Resources"},
        },
    }
    keys = content["properties"]
    keys["seeds"] = {
        "anyOf": [{"$ref": "#/$defs/Seeds"}, content["$defs"]["Seeds"]["properties"]["all"]]
    }
    names = keys["methods"]["patternProperties"]
    keys["methods"]["patternProperties"] = {name: {"$ref": "#/$defs/Method"} for name in names}
    for key in ("datasets", "methods"):
        keys[key]["additionalProperties"] = False  # a name that the pattern does not allow
    return content


def main() -> None:
    """Write the schema."""
    FILE.write_text(json.dumps(schema(), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
