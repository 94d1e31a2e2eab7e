"""Runs with their params, tags and inputs."""

from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.runs.garbage import Garbage
from genesis_flow.areas.runs.inputs import Inputs
from genesis_flow.areas.runs.methods import Runs
from genesis_flow.areas.runs.params_tags import ParamsTags
from genesis_flow.areas.runs.search import RunSearch
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "runs",
    documents=(RunFields, DatasetFields),
    tracking=(Runs, RunSearch, ParamsTags, Inputs, Garbage),
    training=(Runs, ParamsTags, Inputs),
)
