"""Skills."""

from genesis_flow.areas.skills.documents import SkillFields
from genesis_flow.areas.skills.methods import Skills
from genesis_flow.areas.skills.versions import SkillVersions
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration("skills", documents=(SkillFields,), tracking=(Skills, SkillVersions))
