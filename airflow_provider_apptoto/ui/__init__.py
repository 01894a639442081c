"""The page "Apptoto outbox" in Airflow's UI. Only the API server imports these modules."""
