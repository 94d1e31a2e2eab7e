"""Which writer takes which kind. Plain kinds share one."""

from genesis_flow.importers.kinds import PLAIN
from genesis_flow.importers.writers.base import Context, Root, Unwanted, Write, Writer
from genesis_flow.importers.writers.genai import EvaluationWriter, TraceWriter
from genesis_flow.importers.writers.logged_models import LoggedModelWriter
from genesis_flow.importers.writers.plain import PlainWriter
from genesis_flow.importers.writers.registry import RegistryWriter
from genesis_flow.importers.writers.runs import DatasetWriter, ExperimentWriter, RunWriter

# Kinds that share a writer share its instance within a unit. Series of points go to the one of runs.
WRITERS: dict[str, type[Writer]] = {
    "experiment": ExperimentWriter,
    "dataset": DatasetWriter,
    "run": RunWriter,
    "logged_model": LoggedModelWriter,
    "trace": TraceWriter,
    "span": TraceWriter,
    "assessment": TraceWriter,
    "evaluation_dataset": EvaluationWriter,
    "evaluation_record": EvaluationWriter,
    "entity_association": EvaluationWriter,
    "registered_model": RegistryWriter,
    "model_version": RegistryWriter,
    **dict.fromkeys(PLAIN, PlainWriter),
}

__all__ = ["WRITERS", "Context", "Root", "Unwanted", "Write", "Writer"]
