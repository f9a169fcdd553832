"""Reason codes: each has a class and a page."""

import re
from pathlib import Path

import pytest

from stoker_contract.codes import REASON_CLASS, ReasonCode

PAGE = Path(__file__).parents[2] / "docs" / "reason-codes.md"
SECTION = re.compile(r"^### (\w+)\n+(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = dict(SECTION.findall(PAGE.read_text()))


@pytest.mark.parametrize("code", ReasonCode)
def test_a_reason_code_is_documented_with_its_class(code: ReasonCode) -> None:
    """The page says what each code means, its class, and what to do."""
    section = SECTIONS[code.value]
    assert f"Class: {REASON_CLASS[code]}." in section
    assert "What to do:" in section


def test_the_page_documents_no_code_that_is_gone() -> None:
    """The page and the code say the same."""
    assert set(SECTIONS) == {code.value for code in ReasonCode}
