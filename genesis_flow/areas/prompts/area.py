"""Prompts."""

from genesis_flow.areas.prompts.links import PromptLinks
from genesis_flow.areas.prompts.methods import Prompts
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "prompts",
    registry=(PromptLinks, Prompts),
)
