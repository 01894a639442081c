"""Two languages in one text: Airflow's Jinja, and the dynamic fields that Apptoto fills in the same braces."""
