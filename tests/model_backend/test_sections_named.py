"""Where an error sends its reader: to a section that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"docs/([\w-]+\.md)(?:, ([A-Z][A-Za-z]*(?: [A-Za-z]+)*))?")


def test_every_page_and_section_that_the_code_names_is_there() -> None:
    found = 0
    for file in (*(ROOT / "model_backend").rglob("*.py"), *(ROOT / "agent").rglob("*.py")):
        for page, section in NAMED.findall(re.sub(r'"\s+"', "", file.read_text(encoding="utf-8"))):
            text = (ROOT / "docs" / page).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert not section or any(section.startswith(heading) for heading in headings), (file.name, page, section)
            found += bool(section)
    assert found >= 4
