"""All code that depends on an Airflow version or on undocumented parts of Airflow.

No other module may check for a version or use private parts. ``airflow.providers.common.compat.sdk`` covers public
names that moved between versions. A comment that begins with "Checked on" names the versions whose source was read for
it; ``.ci/pins`` has the same ones. DAG files import this module, so it imports Airflow lazily.
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
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import datetime, timedelta

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
    """Return whether a context belongs to the task that is running in this process.

    It does not in callbacks and notifiers that Airflow calls after the task, in triggers, or in scripts.

    :param context: context of a task or a callback, as created by Airflow.
    """
    from airflow.providers.common.compat.sdk import AirflowException, get_current_context

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: Airflow sets the current context while a task renders its fields
    # and executes (on 3.x also for `on_execute_callback`). Without one, 2.11 raises AirflowException, 3.x RuntimeError.
    try:
        current = get_current_context().get("ti")
    except (AirflowException, RuntimeError):
        return False
    return current is not None and current is context.get("ti")


def deferral_until(moment: datetime, method_name: str) -> BaseException:
    """Return the exception that lets a task wait for a point in time without a worker.

    :param moment: with a time zone.
    :param method_name: the method of the task that Airflow then calls.
    """
    from airflow.providers.common.compat.sdk import TaskDeferred

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: the trigger moved to the provider "standard" in Airflow 3.
    try:
        module = importlib.import_module("airflow.providers.standard.triggers.temporal")
    except ImportError:
        module = importlib.import_module("airflow.triggers.temporal")
    deferral: BaseException = TaskDeferred(trigger=module.DateTimeTrigger(moment=moment), method_name=method_name)
    return deferral


def never_expire() -> timedelta:
    """Return the retention for a task state value that lives as long as its DAG run (Airflow 3.3 and newer)."""
    # Checked on 3.3.2, where `set` compares the retention with this object by identity.
    from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]  # Airflow's stub lacks it

    retention: timedelta = NEVER_EXPIRE
    return retention


# --- template fields


class OwnRendering:
    """Mixin for operators that render their template fields themselves.

    List it before Airflow's base class, in a class that defines ``__init__``. Otherwise BaseOperatorMeta compares the
    ``__init__`` with that of the first base and wraps Airflow's twice, which breaks mapped tasks.
    """

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Replace Airflow's rendering for this operator, but not for objects in its fields."""
        # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: the only method that Airflow calls for plain tasks
        # (BaseOperator.render_template_fields) and for mapped ones (MappedOperator.render_template_fields).
        if parent is not self:
            super()._do_render_template_fields(  # type: ignore[misc]  # defined by Airflow's class
                parent, template_fields, context, jinja_env, seen_oids
            )
            return
        try:
            self._render_fields(context, jinja_env, seen_oids)
        except BaseException as error:
            from airflow_provider_apptoto.privacy import remove_frames

            # the frames below hold the fields
            remove_frames(error)
            raise

    @abstractmethod
    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        """Render the template fields in place, and redact personal data.

        :param context: the task's context.
        :param jinja_env: the DAG's Jinja environment.
        :param seen_oids: ids of values from XComs, which Airflow would not render.
        """


def is_literal(value: object) -> bool:
    """Return whether a field is ``literal(...)``."""
    from airflow.providers.common.compat.sdk import literal

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: `literal` is a function, and its class has no public name.
    return type(value) is type(literal(None))


def is_from_expand_kwargs(task: Any, name: str, value: object, context: Any) -> bool:
    """Return whether the value of a field comes from another task, through ``expand_kwargs``.

    Airflow would render it, so ``{{ conn.apptoto_default.password }}`` in a value would send the password.

    :param task: the operator.
    :param name: the field's name.
    :param value: the field's value before rendering.
    :param context: the task's context.
    """
    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: `seen_oids` has the ids of values from `expand`, but not of
    # those from `expand_kwargs`. The DAG has the mapped operator. The class of `expand_input` moved between versions.
    mapped: Any = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    if type(getattr(mapped, "expand_input", None)).__name__ != "ListOfDictsExpandInput":
        return False
    rows = mapped.expand_input.value
    row = rows[context["ti"].map_index] if isinstance(rows, list | tuple) else None
    in_dag_file = (mapped.partial_kwargs.get(name), row.get(name) if isinstance(row, dict) else None)
    return not any(type(each) is type(value) and each == value for each in in_dag_file)


def is_argument_from_task(task: Any, name: str, value: object, context: Any) -> bool:
    """Return whether a decorated function's argument comes from another task, through ``expand`` or ``expand_kwargs``.

    Airflow would render it, if it comes through ``expand_kwargs``.

    :param task: the operator.
    :param name: the argument's name.
    :param value: the argument before rendering.
    :param context: the task's context.
    """
    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: the DAG has the mapped operator with the arguments as written.
    mapped: Any = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    expanded = getattr(mapped, "op_kwargs_expand_input", None)
    if expanded is None:
        return False
    given = expanded.value
    if isinstance(given, dict):
        return name in given and not isinstance(given[name], list | tuple | dict)
    if isinstance(given, list | tuple) and isinstance(given[context["ti"].map_index], dict):
        return False
    written = mapped.partial_kwargs["op_kwargs"].get(name)
    return not (type(written) is type(value) and written == value)


def determine_kwargs(
    function: Callable[..., Any], args: Collection[Any], known: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the keyword arguments that a function takes.

    :param function: the function of a decorated task.
    :param args: its positional arguments.
    :param known: the context, and the keyword arguments that were passed.
    """
    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: common.compat has it since 3.1.
    try:
        from airflow.providers.common.compat.sdk import determine_kwargs as determine
    except ImportError:
        determine = importlib.import_module("airflow.utils.operator_helpers").determine_kwargs
    found: Mapping[str, Any] = determine(function, args, known)
    return found


def string_environment(context: Any, env: jinja2.Environment) -> jinja2.Environment:
    """Return a DAG's Jinja environment that renders to strings, even with ``render_template_as_native_obj``.

    :param context: the task's context.
    :param env: the environment that Airflow renders the task in.
    """
    from jinja2.nativetypes import NativeEnvironment

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: Airflow uses `force_sandboxed` for the texts of its own e-mails.
    return context["dag"].get_template_env(force_sandboxed=True) if isinstance(env, NativeEnvironment) else env


def dag_that_renders(context: Mapping[str, Any]) -> Any:
    """Return the DAG of a context, if it has a Jinja environment, else ``None``."""
    # Checked on 3.3.2: the DAG callbacks of `dags test` get a serialized DAG, which has none.
    dag = context.get("dag")
    return dag if hasattr(dag, "get_template_env") else None


# --- configuration, connections, logs


def runs_tasks_on_one_host() -> bool:
    """Return whether all executors in ``[core] executor`` run their tasks on the scheduler's host."""
    from airflow.providers.common.compat.sdk import conf

    # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2 (executor_loader.py): names, module paths and alias:path, separated
    # by commas; since 3.1 also lists per team, as in "LocalExecutor;team=CeleryExecutor,alias:module.Class".
    configured = re.split("[,;]", conf.get("core", "executor", fallback="LocalExecutor"))
    executors = {each.rpartition("=")[2].rpartition(":")[2].strip() for each in configured}
    return executors <= _LOCAL_EXECUTORS


def connection_form_fields(fields: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the fields of the connection form for Airflow before 3.2; newer versions read the provider's info.

    :param fields: ``label`` and ``description`` of each.
    """
    # Checked on 2.11.2, 3.0.6, 3.1.8: widgets of Flask AppBuilder. API servers of Airflow 3 mock the import, so it need
    # not be installed.
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import StringField

    return {
        name: StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
        for name, field in fields.items()
    }


def read_connections_from_database() -> None:
    """Let a command read connections and Variables from Airflow's database."""
    # Checked on 3.1.8, 3.2.2, 3.3.2, whose `airflow connections` sets it too; 2.11.2 and 3.0.6 ignore it.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"


def without_logs(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Wrap a command of the ``airflow`` command line, so that it prints its output without logs and warnings."""

    def quiet(arguments: argparse.Namespace) -> None:
        from airflow.utils.cli import suppress_logs_and_warning

        # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: it reads `verbose`, which all of Airflow's commands have.
        arguments.verbose = False
        suppress_logs_and_warning(command)(arguments)

    return quiet


def has_provider_cli() -> bool:
    """Return whether ``airflow`` supports commands of providers (Airflow 3.2 and newer)."""
    return _version() >= (3, 2)


def has_plugin_pages() -> bool:
    """Return whether plugins can add pages to Airflow's UI (Airflow 3.1 and newer)."""
    return _version() >= (3, 1)


def clear_keeps_task_state() -> bool:
    """Return whether a task that is cleared keeps its task state (before Airflow 3.4)."""
    return _version() < (3, 4)


def _version() -> tuple[int, int]:
    from airflow import __version__

    major, minor = map(int, __version__.split(".")[:2])
    return major, minor


def mask_secret(secret: str) -> None:
    """Mask a secret in all Airflow logs."""
    _of_secrets_masker("mask_secret")(secret)


def without_secrets(text: str) -> str:
    """Replace the secrets that Airflow masks in its logs."""
    return str(_of_secrets_masker("redact")(text))


def _of_secrets_masker(name: str) -> Callable[[str], Any]:
    # Checked on 3.1.8, 3.2.2, 3.3.2; on 3.0.6; on 2.11.2.
    modules = ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")
    for module in modules:
        with contextlib.suppress(ImportError, AttributeError):
            found: Callable[[str], Any] = getattr(importlib.import_module(module), name)
            return found
    raise ImportError(f"Can't find {name} in any of these Airflow modules: {', '.join(modules)}")


class Variables:
    """Airflow's Variables.

    :param module: module of the class ``Variable``, by default the one for tasks; commands use
        ``airflow.models.variable``.
    """

    def __init__(self, module: str = "airflow.providers.common.compat.sdk") -> None:
        self._variable: Any = importlib.import_module(module).Variable

    def get(self, name: str) -> str | None:
        """Return a Variable, or ``None``."""
        value: str | None = self._call(
            lambda variable: variable.get(name, None)
        )  # the name of the default differs in Airflow 2
        return value

    def set(self, name: str, value: str) -> None:
        """Set a Variable."""
        description = "Set by the Apptoto provider to detect a lost or replaced state database"
        self._call(lambda variable: variable.set(name, value, description=description))

    def _call(self, call: Callable[[Any], Any]) -> Any:
        try:
            return call(self._variable)
        except ImportError:
            # Checked on 3.0.6: outside Airflow's processes, the SDK finds no supervisor and has no fallback.
            return call(importlib.import_module("airflow.models.variable").Variable)


__all__ = ["HAS_RETRY_POLICY", "RetryDecision", "RetryPolicy"]
