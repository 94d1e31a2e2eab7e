import logging

logging.disable(logging.CRITICAL)
from mlflow.entities import *


def test_p(pair):
    def p(m, *a, **k):
        o, t = pair.both(m, *a, **k)
        f = lambda x: (
            f"{x.code} {str(x.error)[:150]!r}" if x.error is not None else f"OK {str(x.result)[:100]}"
        )
        same = o.code == t.code and str(o.error) == str(t.error)
        print(("same" if same else "DIFF"), m, str(a)[:110], "\n     ours", f(o), "\n     theirs", f(t))
        return o.result

    for tags in (
        [RunTag("", "v")],
        [RunTag(None, "v")],
        [RunTag("k\0", "v")],
        [RunTag("k" * 300, "v")],
        [RunTag("a", "1"), RunTag("a", "2")],
        [RunTag("a", 5)],
        [RunTag("a", None)],
        [RunTag("mlflow.runName", "")],
        (RunTag("a", "b"),),
    ):
        p("create_run", "0", "u", 1, tags, None)
    p("create_run", "0", "u", 1, [RunTag("mlflow.runName", "")], "named")
    p("create_run", "0", None, 1, [], None)
    p("create_run", "0", "u", None, [], None)
    p("create_run", "0", "u", "x", [], None)
    p("create_run", "0", "u", 1.5, [], None)
    p("create_run", "0", "u", 2**63, [], None)
    p("create_run", "0", "u", 2**70, [], None)
    p("create_run", "0", "u", 1, [], 5)
    p("create_run", "", "u", 1, [], "a")
    p("create_run", None, "u", 1, [], "a")
    p("create_run", " 0 ", "u", 1, [], "a")
    p("create_run", 0, "u", 1, [], "a")
    for eid in ("9223372036854775808", 2**63, "1" * 40, "-9223372036854775809", 1.0, 0.5, True, ["0"], b"0"):
        p("get_experiment", eid)
        p("search_runs", [eid], "", 1)
    r = p("create_run", "0", "u", 1, [], "a").info.run_id
    p("log_param", r, Param("p", None))
    p("log_param", r, Param("p2", 5))
    p("log_batch", r, [], [Param("p3", None)], [])
    p("set_tag", r, RunTag("t", 5))
    p("set_tag", r, RunTag("t", "\ud800"))
    p("log_param", r, Param("sur", "\ud800"))
    p("log_batch", r, [], [Param("p4", 5)], [])
    p("update_run_info", r, None, "x", None)
    p("update_run_info", r, None, 2**63, None)
    p("update_run_info", r, None, 1.5, None)
    p("update_run_info", r, None, None, 5)
    p("update_run_info", r, None, None, "n" * 400)
    p("get_run", r)
    p("get_run", None)
    p("get_run", 5)
    p("log_batch", None, [], [], [])
    p("log_metric", None, Metric("m", 1.0, 1, 1))
    p("log_metric", r, Metric("inf", float("inf"), 1, 0))
    p("log_metric", r, Metric("ninf", -float("inf"), 1, 0))
    p("log_metric", r, Metric("big", 10**400, 1, 0))
    p("log_metric", r, Metric("cplx", 1j, 1, 0))
    p("log_metric", r, Metric("ts", 1.0, 1.7, 0))
    p("log_metric", r, Metric("st", 1.0, 1, 1.7))
    p("log_metric", r, Metric("ts2", 1.0, 2**63, 0))
    p("log_metric", r, Metric("st2", 1.0, 1, -(2**63)))
    p("log_metric", r, Metric("st3", 1.0, 1, 2**63))
    p("log_metric", r, Metric("nants", 1.0, float("nan"), 0))
    p("log_metric", r, Metric("inft", 1.0, float("inf"), 0))
    p("log_metric", r, Metric("infs", 1.0, 1, float("inf")))
    p("log_metric", r, Metric("nz", -0.0, 1, 0))
    import decimal
    import fractions

    import numpy as np

    p("log_metric", r, Metric("np", np.float32(1.5), np.int64(1), np.int64(2)))
    p("log_metric", r, Metric("dec", decimal.Decimal("1.5"), 1, 0))
    p("log_metric", r, Metric("fr", fractions.Fraction(1, 3), 1, 0))
    p("log_metric", r, Metric("npb", np.bool_(True), 1, 0))
    for k in ("ts", "st", "np", "dec", "fr", "inf", "nz", "ts2", "inft", "big"):
        p("get_metric_history", r, k)
    p("log_batch", r, [Metric("inb", 1.0, 1, 0), Metric("inb", 1.0, 1.7, 0)], [], [])
    p("get_metric_history", r, "inb")
    p("log_batch", r, None, [], [])
    p("log_batch", r, [], None, [])
    p("log_batch", r, (), (), ())
    p("get_metric_history", r, "np", 0)
    p("get_metric_history", r, "np", -1)
    p("get_metric_history", r, "np", 1, "garbage")
    p("get_metric_history", r, "np", 1, "")
    p("get_metric_history", r, None)
    p("get_metric_history_bulk", [r], "np", 0)
    p("get_metric_history_bulk", [r], "np", -1)
    p("get_metric_history_bulk", [r], "np", None)
    p("get_metric_history_bulk_interval_from_steps", r, "np", [2], 0)
    p("get_metric_history_bulk_interval_from_steps", r, "np", [2], -1)
    p("log_param", r, Param("k", "v" * 6001))
    p("create_experiment", "t1", None, [ExperimentTag("k", None)])
    p("create_experiment", "t2", None, [ExperimentTag("k", 5)])
    p("create_experiment", "t3", None, [ExperimentTag("a", "1"), ExperimentTag("a", "2")])
    e = p("create_experiment", "sets")
    p("set_experiment_tag", e, ExperimentTag("k", None))
    p("get_experiment", e)
    p("set_experiment_tag", e, ExperimentTag("k", 5))
    p("delete_experiment_tag", e, "")
    p("delete_experiment_tag", e, None)
    p("rename_experiment", e, "Default")
    p("get_experiment_by_name", None)
    p("get_experiment_by_name", 5)
    p("get_experiment_by_name", "")
    p("create_experiment", "sur\ud800")
    p("create_experiment", "nul\0x")
    p("get_experiment_by_name", "nul\0x")
    p("delete_experiment", "")
    p("get_experiment", "0")
    p("get_run", r)
    p("restore_experiment", None)
    p("get_run", r)
    p("delete_experiment", 0)
    p("restore_experiment", 0)
    p("filter_active_experiment_ids", None)
    p("filter_active_experiment_ids", ["9" * 30])
    p("filter_active_experiment_ids", [e, e])
    p("get_max_step_for_metric", r, "np")
