"""Scorers and online scoring."""

from genesis_flow.areas.judges.documents import ScorerFields
from genesis_flow.areas.judges.methods import Scorers
from genesis_flow.areas.judges.online import OnlineScoring
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration("judges", documents=(ScorerFields,), tracking=(Scorers, OnlineScoring))
