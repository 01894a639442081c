"""Import modules one after another: ``python -m tests.support.imports_in_turn MODULE...``.

The parts of Airflow that every DAG file imports are loaded first. It prints one line of JSON: the packages that each
module loaded and the modules before it did not.
"""

from __future__ import annotations

import importlib
import json
import sys

from airflow.providers.common.compat import sdk

if __name__ == "__main__":
    for name in ("DAG", "BaseHook", "BaseOperator", "conf"):
        getattr(sdk, name)  # loads it
    loaded = {}
    for module in sys.argv[1:]:
        before = set(sys.modules)
        importlib.import_module(module)
        loaded[module] = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
    sys.stdout.write(f"{json.dumps(loaded)}\n")
