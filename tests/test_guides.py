"""The guides: their examples run, and a page stays a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import wgan_lip

GUIDES = {
    path.stem: path.read_text(encoding="utf-8") for path in (Path(wgan_lip.__file__).parent / "guides").glob("*.md")
}
PAGES = [
    (name, page.splitlines()[0], "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    for name, text in GUIDES.items()
    for page in re.split(r"^## ", text, flags=re.MULTILINE)
]
EXAMPLES = [page for page in PAGES if page[2] and page[:2] != ("training", "From Python")]  # test_session runs that one


@pytest.mark.parametrize(("guide", "section", "code"), EXAMPLES, ids=[f"{name}: {part}" for name, part, _ in EXAMPLES])
def test_examples_run(guide, section, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{guide}.md", "exec"), {})


def test_a_page_has_few_lines():
    pages = {name: re.split(r"^## ", GUIDES[name], flags=re.MULTILINE)[1:6] for name in ("estimating", "uses")}
    assert max(len(page.strip().splitlines()) for guide in pages.values() for page in guide) <= 45
