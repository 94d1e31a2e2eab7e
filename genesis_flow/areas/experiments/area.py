"""Experiments, the ids that are given out, and what is in one."""

from genesis_flow.areas.experiments.documents import CounterFields, ExperimentFields
from genesis_flow.areas.experiments.methods import Experiments
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "experiments",
    documents=(ExperimentFields, CounterFields),
    tracking=(Experiments,),
    training=(Experiments,),
)
