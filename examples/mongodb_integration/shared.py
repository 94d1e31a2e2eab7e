"""What every example says at its end: where the results are."""

import matplotlib
import mlflow

from genesis_flow.core.redact import mask_uri

matplotlib.use("Agg")  # figures become artifacts, not windows
matplotlib.rcParams["figure.dpi"] = 200  # sharp on the screens of today


def where_to_look(experiment: str, *places: str) -> None:
    """Print the command that shows the results."""
    uri = mlflow.get_tracking_uri()
    print("\nLook at it")
    if uri.startswith("http"):
        print(f"  {mask_uri(uri)}")
    else:
        here = "    (in this directory)" if uri == "genesis://" else ""
        print(f"  genesis-flow server --backend-store-uri '{mask_uri(uri)}'{here}")
    print(f"  experiment  {experiment}")
    for place in places:
        print(f"  {place}")
