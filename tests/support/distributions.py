"""Check the files of a release: ``python -m tests.support.distributions FOLDER``."""

from __future__ import annotations

import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata
from packaging.utils import parse_sdist_filename, parse_wheel_filename

from airflow_provider_apptoto import __version__

PACKAGE = Path(__file__).parents[2] / "airflow_provider_apptoto"
_INFO = f"{PACKAGE.name}-{__version__}.dist-info"
_RELATIVE = re.compile(r"\]\((?!https://|#)[^)]*\)|(?:src|srcset|href)=\"(?!https://|#)[^\"]*\"")
"""A link or a picture of the README that works in the repository, but not on a page of the package index."""


def check(folder: Path) -> list[str]:
    """Return what is wrong with the wheel and the sdist in a folder."""
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        metadata = Metadata.from_email(archive.read(f"{_INFO}/METADATA"), validate=True)
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    versions = {str(parse_wheel_filename(wheel.name)[1]), str(parse_sdist_filename(sdist.name)[1])}
    if versions != {__version__}:
        return [f"the version is {__version__}, and the files are of {sorted(versions)}"]
    code = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    info = {f"{_INFO}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    needed = code | {"CHANGELOG.md", "LICENSE", "README.md", "docs/conf.py", "pyproject.toml", "tests/conftest.py"}
    return [
        *(f"{wheel.name} lacks {name}" for name in sorted((code | info) - in_wheel)),
        *(f"{wheel.name} has {name}" for name in sorted(in_wheel - code - info)),
        *(f"{sdist.name} lacks {name}" for name in sorted(needed - in_sdist)),
        *broken_on_the_index(metadata.description or ""),
        *wrong_origin((metadata.project_urls or {})["Source"]),
    ]


def broken_on_the_index(readme: str) -> list[str]:
    """Return the links of the README that work in the repository only."""
    return [f"README.md: {link} does not work on PyPI" for link in _RELATIVE.findall(readme)]


def wrong_origin(source: str) -> list[str]:
    """Return why the workflow that runs this must not release: it is another repository's, or of another version.

    :param source: the repository that the metadata names.
    """
    problems = []
    repository, tag = os.environ.get("GITHUB_REPOSITORY"), os.environ.get("GITHUB_REF_NAME")
    if repository and source != f"https://github.com/{repository}":
        problems.append(f"the repository is {repository}, and pyproject.toml names {source}")
    if os.environ.get("GITHUB_REF_TYPE") == "tag" and tag != f"v{__version__}":
        problems.append(f"the tag is {tag}, and the version is {__version__}")
    return problems


if __name__ == "__main__":
    sys.exit("\n".join(check(Path(sys.argv[1]))) or None)
