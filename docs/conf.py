"""Settings of Sphinx: sphinx-build docs docs/_build/html."""

from __future__ import annotations

import os
import tempfile

from airflow_provider_apptoto import __version__

project = "airflow-provider-apptoto"
author = "the contributors of airflow-provider-apptoto"
project_copyright = f"2026, {author}"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_use_index = False  # the search finds more
html_extra_path = ["llms.txt"]
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")

# Airflow writes its configuration there as soon as it is imported, and would do so in somebody's home.
_airflow_home = tempfile.TemporaryDirectory()
os.environ["AIRFLOW_HOME"] = _airflow_home.name

autodoc_member_order = "bysource"
autodoc_typehints = "none"

copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"  # what a program prints is not for pasting
