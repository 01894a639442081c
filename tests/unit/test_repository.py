"""Files that repeat something agree with its source: versions, public classes, tested Airflows."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_registry_names_every_module_and_class_of_the_provider_info() -> None:
    info = get_provider_info()
    listed = re.findall(r"^  - module: (\S+)$", (ROOT / ".airflow-registry.yaml").read_text(), re.MULTILINE)
    classes = {*info["notifications"], *(each["class-name"] for each in info["task-decorators"])}
    kinds = ("operators", "sensors", "triggers", "hooks")
    modules = {name for kind in kinds for each in info[kind] for name in each["python-modules"]}
    assert classes <= set(listed)
    assert {name.rpartition(".")[0] for name in set(listed) - classes} == modules


def test_every_class_of_the_registry_exists() -> None:
    for path in re.findall(r"^  - module: (\S+)$", (ROOT / ".airflow-registry.yaml").read_text(), re.MULTILINE):
        module, _, name = path.rpartition(".")
        source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()
        assert re.search(rf"^(class|def) {name}\b|^from .* import {name}$", source, re.MULTILINE), path


def test_the_workflow_tests_every_pinned_airflow() -> None:
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    tested = set(re.findall(r"\{airflow: \"?([\w.]+)\"?,", workflow))
    pinned = {path.stem.removeprefix("airflow-") for path in (ROOT / ".ci" / "pins").glob("airflow-*.txt")}
    assert tested == pinned - {"3.3"} | {"lowest"}


def test_llms_txt_lists_every_page_of_the_documentation() -> None:
    listed = re.findall(r"/en/stable/([a-z-]+)\.html", (ROOT / "docs" / "llms.txt").read_text())
    pages = {path.stem for path in (ROOT / "docs").glob("*.rst")} - {"index"}
    assert sorted(listed) == sorted(pages)
