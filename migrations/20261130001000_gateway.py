"""The AI gateway: secrets, models, endpoints, bindings, budgets and guardrails, and the costs of its traces.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

NAME = [("workspace", ASCENDING), ("name", ASCENDING)]
NAME_UNIQUE = IndexModel(NAME, name="name_unique", unique=True)
LIST = IndexModel(
    [("workspace", ASCENDING), ("created_time", ASCENDING), ("_id", ASCENDING)], name="by_creation_time"
)
COLLECTIONS = {
    "gateway_secrets": [NAME_UNIQUE, LIST],
    "gateway_models": [NAME_UNIQUE, LIST, IndexModel([("secret_id", ASCENDING)], name="by_secret")],
    "gateway_endpoints": [
        IndexModel(
            NAME, name="name_unique", unique=True, partialFilterExpression={"name": {"$type": "string"}}
        ),
        LIST,
        IndexModel([("models.model_definition_id", ASCENDING)], name="by_model"),
        IndexModel([("guardrails.guardrail_id", ASCENDING)], name="by_guardrail"),
        IndexModel([("experiment_id", ASCENDING)], name="by_experiment"),
    ],
    "gateway_bindings": [
        IndexModel([("endpoint_id", ASCENDING)], name="by_endpoint"),
        IndexModel([("resource_type", ASCENDING), ("resource_id", ASCENDING)], name="by_resource"),
        LIST,
    ],
    "gateway_budgets": [],
    "gateway_guardrails": [
        IndexModel([("scorer.id", ASCENDING), ("scorer.version", ASCENDING)], name="by_scorer"),
        IndexModel([("action_endpoint_id", ASCENDING)], name="by_endpoint"),
    ],
}
ENDPOINT = "metadata.mlflow%2Egateway%2EendpointId"
COSTS = IndexModel(
    [
        (ENDPOINT, ASCENDING),
        ("request_time", ASCENDING),
        ("metadata.mlflow%2Eauth%2Eusername", ASCENDING),
        ("workspace", ASCENDING),
        ("experiment_id", ASCENDING),
        ("cost.total_cost", ASCENDING),
    ],
    name="gateway_costs",
    partialFilterExpression={ENDPOINT: {"$exists": True}},
)
SCORERS_OF_ENDPOINT = IndexModel([("binding.endpoint_id", ASCENDING)], name="by_endpoint", sparse=True)


class Migration(BaseMigration):
    loses = "the AI gateway: keys, models, endpoints, budgets and guardrails"
    compatible = True

    def upgrade(self):
        self.create_collections(COLLECTIONS)
        self.collection("traces").create_indexes([COSTS])
        self.collection("scorers").create_indexes([SCORERS_OF_ENDPOINT])

    def downgrade(self):
        self.drop_index("scorers", "by_endpoint")
        self.drop_index("traces", "gateway_costs")
        for name in COLLECTIONS:
            self.collection(name).drop()
