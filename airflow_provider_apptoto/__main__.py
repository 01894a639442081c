"""``python -m airflow_provider_apptoto``."""

from __future__ import annotations

from airflow_provider_apptoto.cli import main

if __name__ == "__main__":
    main()
