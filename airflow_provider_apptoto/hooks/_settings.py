"""Read the settings of a connection, or those of the sandbox that replaces all connections."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_apptoto.configuration import connection_defaults
from airflow_provider_apptoto.connection import AirflowConnection, ConnectionSettings
from airflow_provider_apptoto.hooks._state import tell_once
from airflow_provider_apptoto.privacy import remove_frames
from airflow_provider_apptoto.sandbox_account import SANDBOX_URL, SandboxAccount

if TYPE_CHECKING:
    from collections.abc import Callable


def read_settings(conn_id: str, get_connection: Callable[[str], AirflowConnection]) -> ConnectionSettings:
    """Return the settings of a connection.

    :raises ApptotoConfigurationError: the connection or a default of the deployment is invalid.
    """
    try:
        defaults = connection_defaults()
        sandbox = SandboxAccount.of_environment()
        if sandbox is None:
            return ConnectionSettings.read(get_connection(conn_id), defaults)
        tell_once(logging.WARNING, f"{SANDBOX_URL} is set: all connections use the sandbox at {sandbox.host}")
        try:
            extra = get_connection(conn_id).extra
        except AirflowException:  # the sandbox works without a connection
            extra = None
        account = dataclasses.replace(sandbox, conn_id=conn_id, extra=extra)
        return dataclasses.replace(ConnectionSettings.read(account, defaults), is_sandbox=True)
    except BaseException as error:
        # the frames below hold Airflow's Connection, whose repr shows the password
        remove_frames(error)
        raise
