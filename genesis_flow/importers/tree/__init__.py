"""Trees of MLflow's file store, of MLflow 1.0 to today, read without MLflow's store."""

from genesis_flow.importers.tree.source import TreeSource, open_tree

__all__ = ["TreeSource", "open_tree"]
