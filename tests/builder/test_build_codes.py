"""Build codes: each has its section on the page that errors point to."""

import re
from pathlib import Path

from stoker_builder.errors import BuildCode, BuildError

PAGE = Path(__file__).parents[2] / BuildError.page
SECTION = re.compile(r"^### (\w+)\n+(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)


def test_the_page_and_the_code_say_the_same() -> None:
    """No code is undocumented, none is documented that is gone, and each says what to do."""
    sections = dict(SECTION.findall(PAGE.read_text()))

    assert set(sections) == {code.value for code in BuildCode}
    assert all("What to do:" in text for text in sections.values())
