"""Logged models and the points of their metrics."""

from collections.abc import Iterable

from mlflow.entities import Metric

from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields, model_metric
from genesis_flow.documents.plain import Document
from genesis_flow.importers.records import Record, Series
from genesis_flow.importers.writers.base import Write, Writer, escaped, kept


class LoggedModelWriter(Writer):
    def add(self, item: Record | Series) -> Iterable[Write]:
        assert isinstance(item, Record)
        body = item.body
        number = self.context.experiment(body["experiment_id"])
        document: Document = {
            "_id": body["model_id"],
            "workspace": self.context.workspace,
            "experiment_id": number,
            **kept("logged_model", body),
            "params": escaped(body["params"]),
            "tags": escaped(body["tags"]),
        }
        for point in body["metrics"]:
            metric = Metric(
                key=point["key"],
                value=point["value"],
                timestamp=point["timestamp"],
                step=point["step"],
                model_id=body["model_id"],
                dataset_name=point["dataset_name"],
                dataset_digest=point["dataset_digest"],
            )
            yield Write(
                ModelMetricFields,
                model_metric(point["run_id"], number, metric),
                root=("logged_models", body["model_id"]),
            )
        yield Write(LoggedModelFields, document)
