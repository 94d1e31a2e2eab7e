"""A training with the plugin of the package beside this file.

pip install ./examples/plugin
MLFLOW_TRACKING_URI=mongodb://localhost:27017/mlflow python examples/plugin/train.py
"""

import mlflow
import pandas as pd
from nearest_center import NearestCenter

from genesis_flow.plugins import get_plugin_manager, plugin_context

POINTS = [(1.0, 1.2), (0.8, 1.0), (1.1, 0.9), (4.0, 4.2), (4.1, 3.9), (3.8, 4.0)]
CLASSES = ["small", "small", "small", "large", "large", "large"]

mlflow.set_experiment("example of a plugin")
with plugin_context("nearest_center") as plugin:
    plugin.functions()["autolog"]()
    with mlflow.start_run() as run:
        model = NearestCenter().fit(POINTS, CLASSES)

    (logged,) = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id],
        filter_string=f"source_run_id = '{run.info.run_id}'",
        output_format="list",
    )
    loaded = plugin.functions()["load_model"](logged.model_uri)
    assert loaded.centers == model.centers

# Disabled again: this fit is not logged.
NearestCenter().fit(POINTS, CLASSES)
assert mlflow.active_run() is None

predicted = mlflow.pyfunc.load_model(logged.model_uri).predict(pd.DataFrame([(0.9, 1.1), (4.2, 4.0)]))
state = next(
    each["state"] for each in get_plugin_manager().list_plugins() if each["name"] == "nearest_center"
)
print(f"Run {run.info.run_id} has a model that predicts {predicted}; the plugin is {state} again.")
