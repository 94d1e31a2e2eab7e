"""Evaluation datasets, their records, and the experiments that they belong to."""

from tests.scenes.stage import Stage


async def scene(stage: Stage) -> None:
    call, experiment = stage.track, stage["experiment"]
    for name in ("data", "doomed data"):
        stage[name] = (await call("create_dataset", name, {"k": "v"}, [experiment])).dataset_id
    dataset_id = stage["data"]
    await call("get_dataset", dataset_id)
    await call("search_datasets", [experiment])
    await call("set_dataset_tags", dataset_id, {"k": "w", "l": "1"})
    await call("delete_dataset_tag", dataset_id, "k")
    plain = [{"inputs": {"q": str(number)}, "expectations": {"a": 1}} for number in range(4)]
    merged = [{"inputs": {"q": "1"}, "expectations": {"b": 2}, "tags": {"x": "y"}}]
    await call("upsert_dataset_records", dataset_id, plain)
    await call("upsert_dataset_records", dataset_id, merged)
    records, _ = await call("_load_dataset_records", dataset_id)
    doomed = next(record for record in records if record.inputs == {"q": "3"})
    await call("delete_dataset_records", dataset_id, [doomed.dataset_record_id])
    await call("add_dataset_to_experiments", dataset_id, ["0"])
    await call("get_dataset_experiment_ids", dataset_id)
    await call("search_entities_by_source", dataset_id, "evaluation_dataset", "experiment")
    await call("search_entities_by_destination", experiment, "experiment", "evaluation_dataset")
    await call("remove_dataset_from_experiments", dataset_id, ["0"])
    await call("delete_dataset", stage["doomed data"])
