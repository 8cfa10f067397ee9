"""The guides: their examples run, and a page stays a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import wgan_lip

GUIDES = {
    path.stem: path.read_text(encoding="utf-8") for path in (Path(wgan_lip.__file__).parent / "guides").glob("*.md")
}
EXAMPLES = [
    (name, section.splitlines()[0], code)
    for name, text in GUIDES.items()
    for section in re.split(r"^## ", text, flags=re.MULTILINE)
    for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL)
]


@pytest.mark.parametrize(("guide", "section", "code"), EXAMPLES, ids=[f"{name}: {part}" for name, part, _ in EXAMPLES])
def test_examples_run(guide, section, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{guide}.md", "exec"), {})


def test_a_page_has_forty_lines_at_most():
    pages = re.split(r"^## ", GUIDES["estimating"], flags=re.MULTILINE)[1:]
    assert len(pages) == 5 and all(len(page.strip().splitlines()) <= 40 for page in pages)
