"""Run a block of Python as a notebook would, with ``await`` at its top level; ``run_id`` is a run's."""

import ast
import asyncio
import inspect
import os
import sys
from pathlib import Path
from typing import Any

path = Path(sys.argv[1])
code = compile(path.read_text(), str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names: dict[str, Any] = {"__name__": "__main__", "run_id": os.environ.get("RUN_ID")}
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, names))
else:
    exec(code, names)
