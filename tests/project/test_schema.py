"""The JSON Schemas in docs/schema are those of the contract."""

import runpy
from pathlib import Path

SCHEMA = Path(__file__).parents[2] / "docs" / "schema"


def test_the_schemas_are_generated_from_the_contract() -> None:
    """Whoever changes a document runs ``scripts/schema``, and sees what changes for others."""
    expected = runpy.run_path(str(SCHEMA / "generate.py"))["schemas"]()
    committed = {path.name: path.read_text() for path in SCHEMA.glob("*.json")}
    assert committed == expected, "run scripts/schema and look at the difference"
