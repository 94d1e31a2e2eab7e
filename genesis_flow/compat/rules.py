"""Rules that MLflow changed and that both kinds of its clients rely on: those of the installed version hold.

Rules of MLflow's own parsers and validators follow the installed version by themselves. Improvements of a
newer version that no client of an older one can miss hold for all: docs/differences.md has these.
"""

from genesis_flow.compat.version import RELEASE

_SINCE_3_18 = RELEASE >= (3, 18)

# Spans go into traces of the experiment that they are logged to, and no trace moves to another. Before, spans
# joined their trace wherever it was, and a trace went where it was stated last.
TRACES_KEEP_THEIR_EXPERIMENT = _SINCE_3_18

# A filter of logged models by a metric looks at its latest value, that of the highest step, and both filters
# and orders at the datasets of the search. Before, any value could satisfy a filter, orders took no notice of
# the search's datasets, and the latest value was that of the highest timestamp.
MODEL_METRICS_BY_LATEST = _SINCE_3_18
