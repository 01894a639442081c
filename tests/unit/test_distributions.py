"""The check of a release finds files that are missing, or too many, and a README or an origin that is wrong."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto import __version__
from tests.support import distributions

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "https://github.com/post/parcel"
INFO = f"airflow_provider_apptoto-{__version__}.dist-info"
METADATA = (
    f"Metadata-Version: 2.4\nName: airflow-provider-apptoto\nVersion: {__version__}\nProject-URL: Source, {SOURCE}\n"
)
MEANT = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
CODE = ("__init__.py", "py.typed")
REST = ("CHANGELOG.md", "LICENSE", "README.md", "docs/conf.py", "pyproject.toml", "tests/conftest.py")


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "airflow_provider_apptoto"
    (package / "__pycache__").mkdir(parents=True)
    for name in (*CODE, "__pycache__/__init__.cpython-311.pyc"):
        (package / name).touch()
    monkeypatch.setattr(distributions, "PACKAGE", package)
    for name in ("GITHUB_REPOSITORY", "GITHUB_REF_NAME", "GITHUB_REF_TYPE"):
        monkeypatch.delenv(name, raising=False)


def checked(folder: Path, *, without: str = "", extra: str = "", readme: str = "") -> list[str]:
    """Check a release that lacks one file, or has one too many."""
    code = [f"airflow_provider_apptoto/{name}" for name in CODE]
    stem = f"airflow_provider_apptoto-{__version__}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for name in {*code, *(f"{INFO}/{name}" for name in MEANT), *([extra] if extra else [])} - {without}:
            wheel.writestr(name, f"{METADATA}\n{readme}" if name.endswith("METADATA") else "")
    with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as sdist:
        for name in {*code, *REST} - {without}:
            sdist.addfile(tarfile.TarInfo(f"{stem}/{name}"), io.BytesIO())
    return distributions.check(folder)


def test_a_complete_release_has_no_problem(tmp_path: Path) -> None:
    assert checked(tmp_path) == []


@pytest.mark.parametrize("name", ["airflow_provider_apptoto/py.typed", f"{INFO}/licenses/LICENSE", "tests/conftest.py"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    problems = checked(tmp_path, without=name)
    assert problems
    assert all(problem.endswith(f" lacks {name}") for problem in problems)


@pytest.mark.parametrize("name", ["tests/conftest.py", "airflow_provider_apptoto/old.py", "airflow/__init__.py"])
def test_the_wheel_has_nothing_that_the_package_has_not(tmp_path: Path, name: str) -> None:
    [problem] = checked(tmp_path, extra=name)
    assert problem.endswith(f".whl has {name}")


@pytest.mark.parametrize("link", ["[docs](docs/batch.rst)", "![inbox](inbox.png)", '<img src="docs/inbox.svg">'])
def test_a_link_that_works_in_the_repository_only_is_named(tmp_path: Path, link: str) -> None:
    [problem] = checked(tmp_path, readme=f"See {link}, [there](https://airflow.apache.org) or [below](#install).")
    assert problem.endswith("does not work on PyPI")


@pytest.mark.parametrize(
    ("repository", "tag", "problems"),
    [("post/parcel", f"v{__version__}", 0), ("fork/parcel", f"v{__version__}", 1), ("post/parcel", "v99.0.0", 1)],
)
def test_only_the_named_repository_releases_the_version_of_its_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: str, tag: str, problems: int
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", repository)
    monkeypatch.setenv("GITHUB_REF_TYPE", "tag")
    monkeypatch.setenv("GITHUB_REF_NAME", tag)
    assert len(checked(tmp_path)) == problems
