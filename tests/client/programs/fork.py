"""A parent logs, its forked children log, the parent logs again. Arguments: URI, experiment name."""

import json
import os
import sys
import warnings

import mlflow

CHILDREN = 3

# What Python says of every fork beside a thread since 3.12.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

uri, name = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_experiment(name)
client = mlflow.MlflowClient()
run = client.create_run(mlflow.set_experiment(name).experiment_id)
client.log_metric(run.info.run_id, "parent", 1.0, step=1)
pids = []
for number in range(CHILDREN):
    pid = os.fork()
    if pid == 0:
        # Leaves through sys.exit(), and so through the interpreter's whole farewell.
        client.log_metric(run.info.run_id, f"child {number}", float(number), step=1)
        client.log_param(run.info.run_id, f"child {number}", number)
        sys.exit(0)
    pids.append(pid)
client.log_metric(run.info.run_id, "parent", 2.0, step=2)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
client.log_metric(run.info.run_id, "parent", 3.0, step=3)
print(json.dumps({"run": run.info.run_id, "exit_codes": codes}))
