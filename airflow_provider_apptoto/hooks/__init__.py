"""The Airflow hook for Apptoto."""
