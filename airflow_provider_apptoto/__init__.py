"""Apache Airflow provider for Apptoto: send SMS, e-mail and voice calls from DAGs."""

from __future__ import annotations

__version__ = "0.1.0"
