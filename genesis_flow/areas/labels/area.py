"""Label schemas."""

from genesis_flow.areas.labels.documents import LabelSchemaFields
from genesis_flow.areas.labels.methods import LabelSchemas
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration("labels", documents=(LabelSchemaFields,), tracking=(LabelSchemas,))
