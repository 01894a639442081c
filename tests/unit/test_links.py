"""The check of links finds what is broken, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.links import Checker

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTATION = "https://parcel.readthedocs.io/en/stable/"
SOURCE = "https://github.com/post/parcel"
PROJECT = f"""
[project.urls]
Documentation = "{DOCUMENTATION}"
Source = "{SOURCE}"
"""


@pytest.fixture
def checker(tmp_path: Path) -> Checker:
    site = tmp_path / "docs" / "site"
    site.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "LICENSE").write_text("All yours.")
    (tmp_path / "GUIDE.md").write_text("# How to send\n")
    (site / "index.html").write_text('<a href="batch.html#rows">rows</a> <a href="#top">top</a> <p id="top">')
    (site / "batch.html").write_text('<section id="rows"><a href="./">home</a> <a href="mailto:a@b.example">us</a>')
    return Checker(tmp_path, site)


@pytest.mark.parametrize(
    "link",
    [
        "LICENSE",
        "GUIDE.md#how-to-send",
        DOCUMENTATION,
        f"{DOCUMENTATION}batch.html#rows",
        f"{SOURCE}/blob/main/LICENSE",
        f"{SOURCE}/issues",
        "https://airflow.apache.org/nowhere.html",
    ],
)
def test_a_link_that_works_is_no_problem(checker: Checker, link: str) -> None:
    (checker.root / "README.md").write_text(f"See [this]({link}).")
    assert list(checker.problems()) == []


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("LICENCE", "no such file"),
        ("GUIDE.md#how-to-wait", "no such anchor"),
        (f"{DOCUMENTATION}row.html", "no such file"),
        (f"{DOCUMENTATION}batch.html#row", "no such anchor"),
        (f"{DOCUMENTATION}#bottom", "no such anchor"),
        (f"{SOURCE}/blob/main/NOTICE", "no such file"),
        ("https://github.com/somebody/parcel", "pyproject.toml has another address of this project"),
        ("https://parcel.readthedocs.io/en/latest/", "pyproject.toml has another address of this project"),
    ],
)
@pytest.mark.parametrize("text", ["See [this]({}).", "[![it]({})](LICENSE)", "[`code` and [more]]({})"])
def test_a_broken_link_is_named_with_its_file(checker: Checker, link: str, problem: str, text: str) -> None:
    (checker.root / "README.md").write_text(text.format(link))
    assert list(checker.problems()) == [f"README.md: {link}: {problem}"]


@pytest.mark.parametrize("html", ['<a href="rows.html">', '<img src="_static/inbox.png">', '<a href="batch.html#to">'])
def test_a_page_with_a_broken_link_is_named(checker: Checker, html: str) -> None:
    (checker.site / "more.html").write_text(html)
    [found] = checker.problems()
    assert found.startswith("more.html: ")


def test_punctuation_after_an_address_is_no_part_of_it(checker: Checker) -> None:
    (checker.root / "README.md").write_text(
        f"The rows: {DOCUMENTATION}batch.html#rows. Or {DOCUMENTATION}batch.html, too."
    )
    assert list(checker.problems()) == []


def test_a_page_may_be_built_for_another_version(checker: Checker) -> None:
    canonical = '<link rel="canonical" href="https://parcel.readthedocs.io/en/latest/more.html">'
    (checker.site / "more.html").write_text(canonical)
    assert list(checker.problems()) == []


def test_the_address_of_another_owner_is_found_wherever_it_stands(checker: Checker) -> None:
    (checker.root / "CITATION.cff").write_text("repository-code: https://github.com/old-owner/parcel\n")
    (checker.root / "airflow_provider_apptoto").mkdir()
    (checker.root / "airflow_provider_apptoto" / "form.py").write_text(f'HELP = "{DOCUMENTATION}forms.html"\n')
    assert sorted(problem.partition(":")[0] for problem in checker.problems()) == [
        "CITATION.cff",
        "airflow_provider_apptoto/form.py",
    ]


def test_code_in_a_file_is_not_read_as_links(checker: Checker) -> None:
    (checker.root / "README.md").write_text("`row[0](value)`\n\n```python\nrows[1](2)\n```\n")
    assert list(checker.problems()) == []
