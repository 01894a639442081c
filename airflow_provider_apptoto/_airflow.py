"""Where this package depends on one Airflow version, or on a part of Airflow that is not documented.

Nothing else may test for a version or use a private part. ``airflow.providers.common.compat.sdk`` covers public names
that moved between versions. Each comment that begins with "Checked on" names the versions whose source was read for it;
``.ci/pins`` has the same ones. DAG files import this module, so it imports Airflow's own modules when they are needed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    import jinja2
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import RetryDecision, RetryPolicy

    HAS_RETRY_POLICY = True
else:
    try:
        from airflow.sdk import RetryDecision, RetryPolicy

        HAS_RETRY_POLICY = True
    except ImportError:  # Airflow < 3.3
        RetryDecision = None
        RetryPolicy = object
        HAS_RETRY_POLICY = False

_LOCAL_EXECUTORS = {
    "LocalExecutor",
    "SequentialExecutor",
    "airflow.executors.local_executor.LocalExecutor",
    "airflow.executors.sequential_executor.SequentialExecutor",
}


# --- tasks and their context


def is_running_task(context: Mapping[str, Any]) -> bool:
    """Tell whether a context is that of the task that runs in this process now.

    It is not for callbacks and notifiers that Airflow calls after the task, in triggers, or in scripts.

    :param context: of a task or a callback, as Airflow makes it.
    """
    from airflow.providers.common.compat.sdk import AirflowException, get_current_context

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: Airflow sets the current context while a task renders its fields
    # and executes (on 3.x also for `on_execute_callback`). Without one, 2.11 raises AirflowException, 3.x RuntimeError.
    try:
        current = get_current_context().get("ti")
    except (AirflowException, RuntimeError):
        return False
    return current is not None and current is context.get("ti")


def never_expire() -> timedelta:
    """Return the retention of a value in task state that lives as long as its DAG run: from Airflow 3.3 on."""
    # Checked on 3.3.2, where `set` compares the retention with this object by identity.
    from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]  # Airflow's stub lacks it

    retention: timedelta = NEVER_EXPIRE
    return retention


# --- template fields


class OwnRendering:
    """Mixin of an operator that renders its template fields itself.

    It stands before Airflow's base class, in a class that defines ``__init__``. If a class does not, BaseOperatorMeta
    compares its ``__init__`` with that of the first base, and wraps Airflow's twice: mapped tasks then fail.
    """

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Replace Airflow's rendering of this operator, but not of objects that its fields hold."""
        # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: the only method that Airflow calls for plain tasks
        # (BaseOperator.render_template_fields) and for mapped ones (MappedOperator.render_template_fields).
        if parent is not self:
            super()._do_render_template_fields(  # type: ignore[misc]  # Airflow's class has it
                parent, template_fields, context, jinja_env, seen_oids
            )
            return
        try:
            self._render_fields(context, jinja_env, seen_oids)
        except BaseException as error:
            from airflow_provider_apptoto.privacy import remove_frames

            # the frames below hold fields
            remove_frames(error)
            raise

    @abstractmethod
    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        """Render the template fields in place, and hide personal data.

        :param context: the task's context.
        :param jinja_env: the DAG's Jinja environment.
        :param seen_oids: ids of values that Airflow took out of XComs, and would not render.
        """


def is_literal(value: object) -> bool:
    """Tell whether a field holds ``literal(...)``."""
    from airflow.providers.common.compat.sdk import literal

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: `literal` is a function, and its class has no public name.
    return type(value) is type(literal(None))


def is_from_expand_kwargs(task: Any, name: str, value: object, context: Any) -> bool:
    """Tell whether another task gave the value of a field, through ``expand_kwargs``.

    Airflow would render it: a value ``{{ conn.apptoto_default.password }}`` would be sent as what that is.

    :param task: the operator.
    :param name: the field's name.
    :param value: what the field holds before rendering.
    :param context: the task's context.
    """
    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: `seen_oids` lists the ids of values out of `expand`, but not of
    # those out of `expand_kwargs`, and the DAG holds the mapped operator. The class of `expand_input` has two homes.
    mapped: Any = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    if type(getattr(mapped, "expand_input", None)).__name__ != "ListOfDictsExpandInput":
        return False
    rows = mapped.expand_input.value
    row = rows[context["ti"].map_index] if isinstance(rows, list | tuple) else None
    in_dag_file = (mapped.partial_kwargs.get(name), row.get(name) if isinstance(row, dict) else None)
    return not any(type(each) is type(value) and each == value for each in in_dag_file)


def string_environment(context: Any, env: jinja2.Environment) -> jinja2.Environment:
    """Return a DAG's Jinja environment that makes strings, also if it has ``render_template_as_native_obj``.

    :param context: the task's context.
    :param env: the environment that Airflow renders the task in.
    """
    from jinja2.nativetypes import NativeEnvironment

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: Airflow has `force_sandboxed` for the texts of its own e-mails.
    return context["dag"].get_template_env(force_sandboxed=True) if isinstance(env, NativeEnvironment) else env


# --- configuration, connections, logs


def runs_tasks_on_one_host() -> bool:
    """Tell whether every executor of ``[core] executor`` runs its tasks on the scheduler's host."""
    from airflow.providers.common.compat.sdk import conf

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2 (executor_loader.py): names, module paths and alias:path, separated
    # by commas; from 3.1 on also lists of teams, as in "LocalExecutor;team=CeleryExecutor,alias:module.Class".
    configured = re.split("[,;]", conf.get("core", "executor", fallback="LocalExecutor"))
    executors = {each.rpartition("=")[2].rpartition(":")[2].strip() for each in configured}
    return executors <= _LOCAL_EXECUTORS


def connection_form_fields(fields: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return fields of the connection form: before Airflow 3.2, which reads them from the provider's info.

    :param fields: ``label`` and ``description`` of each.
    """
    # Checked on 2.11.2, 3.0.6, 3.1.8: widgets of Flask AppBuilder, which API servers of Airflow 3 replace by stand-ins
    # when they import them, so that it need not be installed.
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import StringField

    return {
        name: StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
        for name, field in fields.items()
    }


def read_connections_from_database() -> None:
    """Let this process, a command, find the connections and Variables of Airflow's database."""
    # Checked on 3.1.8, 3.2.2, 3.3.2, whose `airflow connections` sets it too; 2.11.2 and 3.0.6 ignore it.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"


def without_logs(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Return a command of the ``airflow`` command line that prints no logs and no warnings, only its answer."""

    def quiet(arguments: argparse.Namespace) -> None:
        from airflow.utils.cli import suppress_logs_and_warning

        # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: it reads `verbose`, which all of Airflow's commands have.
        arguments.verbose = False
        suppress_logs_and_warning(command)(arguments)

    return quiet


def has_provider_cli() -> bool:
    """Tell whether ``airflow`` takes commands of providers: from 3.2 on."""
    from airflow import __version__

    major, minor = map(int, __version__.split(".")[:2])
    return (major, minor) >= (3, 2)


def mask_secret(secret: str) -> None:
    """Have Airflow hide a secret in all its logs."""
    # Checked on 3.1.8, 3.2.2, 3.3.2; on 3.0.6; on 2.11.2.
    homes = ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")
    for home in homes:
        with contextlib.suppress(ImportError):
            if mask := getattr(importlib.import_module(home), "mask_secret", None):
                mask(secret)
                return
    raise ImportError(f"this Airflow has its mask_secret in none of {', '.join(homes)}")


class Variables:
    """Airflow's Variables.

    :param module: has the class; by default the one for tasks. A command uses ``airflow.models.variable``.
    """

    def __init__(self, module: str = "airflow.providers.common.compat.sdk") -> None:
        self._variable: Any = importlib.import_module(module).Variable

    def get(self, name: str) -> str | None:
        """Return a Variable, or ``None``."""
        value: str | None = self._call(
            lambda variable: variable.get(name, None)
        )  # Airflow 2 names the default otherwise
        return value

    def set(self, name: str, value: str) -> None:
        """Set a Variable."""
        description = "Made by the Apptoto provider, which tells by it that a state database lost its memory"
        self._call(lambda variable: variable.set(name, value, description=description))

    def _call(self, call: Callable[[Any], Any]) -> Any:
        try:
            return call(self._variable)
        except ImportError:
            # Checked on 3.0.6: outside of Airflow's processes the SDK finds no supervisor, and has no other way yet.
            return call(importlib.import_module("airflow.models.variable").Variable)


__all__ = ["HAS_RETRY_POLICY", "RetryDecision", "RetryPolicy"]
