"""The pages hold together: links lead somewhere, the reference is that of the source, every page is in the index."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE_NAME = r"`((?:supernet|proxies|search|data|train|launch|benchmarks|docs|tests)/[\w/]+\.(?:py|md))`"


def without_code(text: str) -> str:
    """What is not shown as code; a link there is none."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", "\n".join(line for line in text.splitlines() if not line.startswith("    ")))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    found: dict[str, int] = {}
    for line in re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL).splitlines():
        if heading := re.match(r"#{1,6} (.*)", line):
            name = re.sub(r"[^\w\- ]", "", heading.group(1).lower()).replace(" ", "-")
            found[name] = found.get(name, -1) + 1
            if found[name]:
                found[f"{name}-{found[name]}"] = 0
    return set(found)


def broken(page: Path, text: str) -> Iterator[str]:
    """Links of a page that lead nowhere."""
    for target in re.findall(r"\]\(([^)\s]*)\)", without_code(text)):
        where = urlparse(target)
        if where.scheme:
            if where.scheme not in ("http", "https") or "." not in where.netloc:
                yield target
            continue
        file = (page.parent / where.path).resolve() if where.path else page
        if not file.exists() or ROOT not in file.parents:
            yield target
        elif where.fragment and (file.suffix != ".md" or where.fragment not in anchors(file)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page, page.read_text())) == []


@pytest.mark.parametrize(
    "link", ["[x](none.md)", "[x](log.md#none)", "[x](ftp://a.b)", "[x](https://nowhere)", "[x](../../x)", "[x](#none)"]
)
def test_a_planted_link_to_nowhere_is_found(link: str) -> None:
    page = ROOT / "docs" / "README.md"
    assert len(list(broken(page, f"{link} [y](log.md) [z](https://arxiv.org/abs/2311.13169) `[x](code)`"))) == 1


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=lambda page: page.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    named = re.findall(FILE_NAME, page.read_text())
    assert [name for name in named if "<" not in name and not (ROOT / name).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    linked = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_reference_is_that_of_the_source() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docs/reference.md is out of date; run make docs {done.stderr}"


def test_concepts_have_papers_and_files() -> None:
    """Each section with a paper has its arXiv number; each names where in the repository it is."""
    sections = (ROOT / "docs" / "concepts.md").read_text().split("\n## ")[1:]
    assert len(sections) >= 9
    for section in sections:
        title = section.splitlines()[0]
        assert re.search(FILE_NAME, section), title
        if "Paper" in section:
            assert re.search(r"arXiv\s\d{4}\.\d{5}", section), title
