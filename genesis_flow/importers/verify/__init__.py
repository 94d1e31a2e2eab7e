"""Proof that an import is complete: source and target read once more and compared, entity by entity.

Nothing here is shared with the importing readers and writers, so that what one of them got wrong shows.
"""

from genesis_flow.importers.verify.compare import Comparer, Count, Outcome, Report, SourceReader
from genesis_flow.importers.verify.opening import open_source
from genesis_flow.importers.verify.target import Names, Target
from genesis_flow.importers.verify.wanted import Wanted

__all__ = ["Comparer", "Count", "Names", "Outcome", "SourceReader", "Target", "Wanted", "verify"]


def verify(
    source_uri: str, target: Target, wanted: Wanted | None = None, report: Report | None = None
) -> Outcome:
    """Compare all that ``wanted`` asks for."""
    source = open_source(source_uri, wanted or Wanted())
    try:
        return Comparer(source, target, report).run()
    finally:
        source.close()
