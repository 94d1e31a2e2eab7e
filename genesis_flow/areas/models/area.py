"""Registered models and their versions."""

from genesis_flow.areas.models.aliases import Aliases
from genesis_flow.areas.models.copies import Copies
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields
from genesis_flow.areas.models.methods import RegisteredModels
from genesis_flow.areas.models.stages import Stages
from genesis_flow.areas.models.versions import ModelVersions
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "models",
    documents=(RegisteredModelFields, ModelVersionFields),
    registry=(Copies, RegisteredModels, ModelVersions, Stages, Aliases),
)
