"""The tables in docs/gates.md are those of the gate."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_are_worked_out_with_the_gate_that_ships() -> None:
    """Whoever changes the gate runs ``scripts/gates``, and sees what it promises from now on."""
    page = (DOCS / "gates.md").read_text()
    expected = runpy.run_path(str(DOCS / "gates" / "generate.py"))["filled"](page)
    assert page == expected, "run scripts/gates and look at the difference"
