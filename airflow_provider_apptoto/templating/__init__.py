"""Render texts that mix Airflow's Jinja with Apptoto's dynamic fields, which use the same braces."""
