"""From an Airflow connection to a client of Apptoto."""
