"""What we use of MLflow that it does not promise to keep, and all that differs between its versions.

Only here are private names of MLflow imported and versions of it known; ``tools/check_mlflow_names.py`` sees
to that. A name that MLflow renames or moves is mended in one place, and the rest of the package goes on with
the name it has here. One module for each topic: an import loads no more of MLflow than its topic needs.
"""
