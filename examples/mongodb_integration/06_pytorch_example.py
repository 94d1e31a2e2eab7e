"""A plain training loop of PyTorch: losses at every step, checkpoints, the best weights.

    pip install torch
    python 06_pytorch_example.py

A small network learns to tell two spirals apart, on the processor. Each step logs its loss, each epoch the
accuracy, and the weights are kept whenever they are the best so far. They are loaded again at the end. Runs
on an embedded MongoDB in ./genesis-data unless MLFLOW_TRACKING_URI names another store.
"""

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mlflow
import torch
from shared import where_to_look
from torch import nn

EXPERIMENT = "example 6: a loop of PyTorch"
HIDDEN, RATE, EPOCHS, BATCH = 32, 0.01, 40, 64


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    mlflow.set_experiment(EXPERIMENT)
    torch.manual_seed(7)
    torch.set_num_threads(1)  # so little work is slower on many
    points, sides = spirals(800)
    train = torch.utils.data.TensorDataset(points[:600], sides[:600])
    test = points[600:], sides[600:]
    network = nn.Sequential(nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh())
    network.append(nn.Linear(HIDDEN, 1))
    with mlflow.start_run(run_name="two spirals") as run:
        mlflow.log_params({"hidden": HIDDEN, "rate": RATE, "epochs": EPOCHS, "batch": BATCH})
        fit(network, train, *test)
        mlflow.log_figure(regions(network, *test), "plots/regions.png")
    best = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/checkpoints/best.pt")
    network.load_state_dict(torch.load(best, weights_only=True))
    print(f"The best weights, loaded again: accuracy {accuracy(network, *test):.3f}")
    where_to_look(EXPERIMENT, "the curves are drawn while the loop runs: click the button for live updates")


def fit(
    network: nn.Module, train: torch.utils.data.TensorDataset, points: torch.Tensor, sides: torch.Tensor
) -> None:
    """The loop as everybody writes it; the lines that log are those that begin with mlflow."""
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    loss_of = nn.BCEWithLogitsLoss()
    best, step = 0.0, 0
    for epoch in range(EPOCHS):
        for inputs, targets in torch.utils.data.DataLoader(train, batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            loss = loss_of(network(inputs).squeeze(1), targets)
            loss.backward()
            optimizer.step()
            mlflow.log_metric("loss", loss.item(), step=step)
            step += 1
        reached = accuracy(network, points, sides)
        mlflow.log_metric("accuracy", reached, step=step)
        if reached > best:
            best = reached
            keep(network)
            print(f"  epoch {epoch + 1:2}  accuracy {reached:.3f}  kept")
    mlflow.log_metric("best_accuracy", best)


def keep(network: nn.Module) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "best.pt"
        torch.save(network.state_dict(), file)
        mlflow.log_artifact(str(file), "checkpoints")


def accuracy(network: nn.Module, points: torch.Tensor, sides: torch.Tensor) -> float:
    with torch.no_grad():
        return float(((network(points).squeeze(1) > 0) == (sides > 0)).float().mean())


def spirals(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on two arms that turn into each other, and the arm of each."""
    sides = torch.randint(0, 2, (count,)).float()
    turn = torch.rand(count).sqrt() * 3 * torch.pi
    angle = turn + sides * torch.pi
    points = torch.stack([turn * angle.cos(), turn * angle.sin()], dim=1) / 5
    return points + 0.04 * torch.randn(count, 2), sides


def regions(network: nn.Module, points: torch.Tensor, sides: torch.Tensor) -> plt.Figure:
    """What the network says of every place, with the test points on it."""
    ticks = torch.linspace(-2.2, 2.2, 150)
    grid = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        said = network(grid).sigmoid().reshape(150, 150).T.numpy()
    figure, axes = plt.subplots(figsize=(6, 5.5), layout="constrained")
    axes.contourf(ticks.numpy(), ticks.numpy(), said, levels=20, cmap="RdBu", alpha=0.6)
    axes.scatter(
        points[:, 0].numpy(), points[:, 1].numpy(), c=sides.numpy(), cmap="RdBu", s=14, edgecolors="k"
    )
    axes.set(title="Test points on what the network says")
    return figure


if __name__ == "__main__":
    main()
