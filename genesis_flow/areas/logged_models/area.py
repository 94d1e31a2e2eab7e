"""Logged models."""

from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields
from genesis_flow.areas.logged_models.methods import LoggedModels
from genesis_flow.areas.logged_models.search import LoggedModelSearch
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "logged_models",
    documents=(LoggedModelFields, ModelMetricFields),
    tracking=(LoggedModels, LoggedModelSearch),
)
