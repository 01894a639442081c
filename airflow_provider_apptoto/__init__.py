"""Apache Airflow provider for Apptoto: SMS, e-mail and voice calls as steps of data pipelines."""

from __future__ import annotations

__version__ = "0.1.0"
