"""Issues."""

from genesis_flow.areas.issues.documents import IssueFields
from genesis_flow.areas.issues.methods import Issues
from genesis_flow.areas.issues.search import IssueSearch
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration("issues", documents=(IssueFields,), tracking=(Issues, IssueSearch))
