"""Metrics of runs."""

from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.history import MetricHistory
from genesis_flow.areas.metrics.methods import Metrics
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "metrics",
    documents=(MetricHeadFields, MetricBlockFields),
    tracking=(Metrics, MetricHistory),
    training=(Metrics,),
)
