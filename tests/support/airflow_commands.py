"""Run ``airflow`` commands in one interpreter: ``python -m tests.support.airflow_commands COMMAND...``.

It prints one line of JSON: the output of each command.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys

from airflow.__main__ import main

if __name__ == "__main__":
    printed = {}
    for command in sys.argv[1:]:
        sys.argv = ["airflow", *shlex.split(command)]
        with contextlib.redirect_stdout(io.StringIO()) as output:
            main()
        printed[command] = output.getvalue()
    sys.stdout.write(f"{json.dumps(printed)}\n")
