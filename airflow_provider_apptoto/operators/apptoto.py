"""The public operators."""

from __future__ import annotations

from airflow_provider_apptoto.operators._base import ApptotoRetryPolicy
from airflow_provider_apptoto.operators.appointments import ApptotoListEventsOperator
from airflow_provider_apptoto.operators.send_message import ApptotoSendMessageOperator
from airflow_provider_apptoto.operators.send_message_batch import ApptotoSendMessageBatchOperator

__all__ = [
    "ApptotoListEventsOperator",
    "ApptotoRetryPolicy",
    "ApptotoSendMessageBatchOperator",
    "ApptotoSendMessageOperator",
]
