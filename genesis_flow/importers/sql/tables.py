"""The tables of MLflow's SQL schema: which are read, what belongs to what.

A table that is neither read nor derived is counted as one that the target has no place for; a test goes over
those of the installed MLflow.
"""

from genesis_flow.importers.kinds import KINDS, OWNED

# The tables of parts of kinds, with the kind.
PARTS = tuple((kind, rows) for kind in KINDS for rows in kind.rows)
_KIND_OF = (
    {"metrics": "metric", "latest_metrics": "metric", "input_tags": "run"}
    | {rows.table: kind.name for kind, rows in PARTS}
    | {kind.table: kind.name for kind in KINDS}
)

# Read by this package.
READ = frozenset({*_KIND_OF, "inputs"})

# A child's table and columns, the parent's, and the kind that a child counts as. A child without its parent
# is reported, since nothing leads to it.
PARENTS = tuple(
    (table, columns, owner, key, _KIND_OF[table])
    for owner, owned in OWNED.items()
    for table, (columns, key) in owned.items()
)

# With which kinds those are told that are no phase of their own.
PHASE_OF = {"metric": "run"} | {kind.name: kind.within for kind in KINDS if kind.within}

# The table of each phase, and the column of its ids.
ROOTS = {kind.name: (kind.table, kind.key[-1]) for kind in KINDS if not kind.within}
