"""Lightning's logger and a callback of your own: the trainer logs, and nothing calls mlflow in the model.

    pip install lightning
    python 07_lightning_example.py

MLFlowLogger takes the tracking URI as it is. What self.log() says goes to a run, with the hyperparameters,
and a callback adds what it alone knows: the size of the gradients, and at the end a checkpoint. Callbacks
of transformers and of Keras work in the same way. Runs on an embedded MongoDB in ./genesis-data unless
MLFLOW_TRACKING_URI names another store.
"""

import logging
import os
import tempfile
import warnings

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from shared import where_to_look
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EXPERIMENT = "example 7: a trainer of Lightning"
EPOCHS = 20

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
# The data are in memory: workers that read them would only cost time.
warnings.filterwarnings("ignore", message=".*does not have many workers.*")


class Curve(pl.LightningModule):
    """Learns a noisy sine."""

    def __init__(self, hidden: int, rate: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs)

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        return self.measured("train_loss", batch)

    def validation_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        return self.measured("validation_loss", batch)

    def measured(self, name: str, batch: list[torch.Tensor]) -> torch.Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self(inputs), targets)
        self.log(name, loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["rate"])


class Gradients(pl.Callback):
    """Logs how large the gradients are, and draws what was learned."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        sizes = [weights.grad.norm() for weights in pl_module.parameters() if weights.grad is not None]
        pl_module.log("gradient", torch.stack(sizes).norm())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logger = trainer.logger
        assert isinstance(logger, MLFlowLogger)
        logger.experiment.log_figure(logger.run_id, drawn(pl_module), "plots/curve.png")


def main() -> None:
    print(__doc__)
    uri = os.environ.get("MLFLOW_TRACKING_URI", "genesis://")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    pl.seed_everything(7, verbose=False)
    torch.set_num_threads(1)
    inputs = torch.rand(600, 1) * 6 - 3
    data = TensorDataset(inputs, inputs.sin() + 0.1 * torch.randn(600, 1))
    train, validation = torch.utils.data.random_split(data, [500, 100])
    logger = MLFlowLogger(experiment_name=EXPERIMENT, tracking_uri=uri, run_name="sine", log_model=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            log_every_n_steps=5,
            logger=logger,
            callbacks=[Gradients(), ModelCheckpoint(dirpath=folder, monitor="validation_loss")],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        model = Curve(hidden=24, rate=0.01)
        trainer.fit(model, DataLoader(train, 50, shuffle=True), DataLoader(validation, 100))
    client = MlflowClient(uri)
    run = client.get_run(logger.run_id)
    points = client.get_metric_history(run.info.run_id, "train_loss")
    print(f"{len(points)} points of train_loss, {points[0].value:.3f} to {points[-1].value:.3f}")
    print("artifacts:", ", ".join(sorted(file.path for file in client.list_artifacts(run.info.run_id))))
    where_to_look(EXPERIMENT, "tab Model metrics of the run: loss and gradients")


def drawn(model: nn.Module) -> plt.Figure:
    inputs = torch.linspace(-3, 3, 200).unsqueeze(1)
    with torch.no_grad():
        learned = model(inputs)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(inputs.numpy(), inputs.sin().numpy(), color="0.6", label="sine")
    axes.plot(inputs.numpy(), learned.numpy(), color="tab:blue", label="learned")
    axes.legend(frameon=False)
    axes.set(title="What the network learned")
    return figure


if __name__ == "__main__":
    main()
