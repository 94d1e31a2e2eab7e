"""Workspaces. They are calls of the tracking store, whose connection a server has already."""

from genesis_flow.areas.workspaces.documents import WorkspaceFields
from genesis_flow.areas.workspaces.methods import Workspaces
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration("workspaces", documents=(WorkspaceFields,), tracking=(Workspaces,))
