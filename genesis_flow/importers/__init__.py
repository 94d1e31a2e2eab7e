"""Import jobs: data of other MLflow stores, moved into the database once and proven."""
