"""Artifacts and datasets: plots, tables, texts, folders of files, and which data a run has seen.

    python 03_artifacts_datasets_example.py

A season of invented weather is split and described. One run logs it as datasets and keeps plots, tables,
a report and files; then everything is found again and read back. Runs on an embedded MongoDB in
./genesis-data unless MLFLOW_TRACKING_URI names another store. With GENESIS_FLOW_ARTIFACT_ROOT the files
go elsewhere, for example to Azure (docs/artifacts.md).
"""

import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mlflow
import numpy as np
import pandas as pd
from matplotlib.dates import ConciseDateFormatter
from shared import where_to_look

EXPERIMENT = "example 3: artifacts and datasets"
STATIONS = ["Bergen", "Lima", "Nairobi"]


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    experiment = mlflow.set_experiment(EXPERIMENT)
    weather = simulate_weather()
    with mlflow.start_run(run_name="a season of weather") as run:
        log_datasets(weather)
        log_plots(weather)
        log_tables_and_texts(weather)
        log_files(weather)
    read_back(run.info.run_id)
    find_by_dataset(experiment.experiment_id)
    where_to_look(EXPERIMENT, "run         a season of weather, tab Artifacts")


def simulate_weather() -> pd.DataFrame:
    """Temperature and rain of three stations on 120 days; the same at every start."""
    random = np.random.default_rng(2024)
    days = pd.date_range("2024-03-01", periods=120, name="day")
    frames = []
    for station, mean, swing, rainy in zip(STATIONS, (7, 20, 19), (9, -3, 1), (0.6, 0.05, 0.3), strict=True):
        seasonal = mean + swing * np.linspace(-0.5, 0.8, len(days))
        noise = np.convolve(random.normal(0, 3, len(days) + 4), np.full(5, 0.2), mode="valid")
        rain = np.where(random.random(len(days)) < rainy, random.gamma(2.0, 4.0, len(days)), 0.0)
        frames.append(
            pd.DataFrame(
                {
                    "day": days,
                    "station": station,
                    "temperature": (seasonal + noise).round(1),
                    "rain": rain.round(1),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def log_datasets(weather: pd.DataFrame) -> None:
    """Which data a run has seen: name, digest, schema and profile are kept, not the rows."""
    cut = weather.day.sort_values().iloc[int(len(weather) * 0.8)]
    for context, part in {
        "training": weather[weather.day < cut],
        "validation": weather[weather.day >= cut],
    }.items():
        dataset = mlflow.data.from_pandas(part, name=f"weather-{context}", targets="rain")
        mlflow.log_input(dataset, context=context, tags={"stations": str(len(STATIONS))})
        print(f"dataset  {dataset.name:20} digest {dataset.digest}  {len(part)} rows")


def log_plots(weather: pd.DataFrame) -> None:
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    for station, rows in weather.groupby("station"):
        (line,) = axes.plot(
            rows.day, rows.temperature.rolling(7, center=True).mean(), label=station, linewidth=2
        )
        axes.plot(rows.day, rows.temperature, color=line.get_color(), alpha=0.3, linewidth=0.8)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.set(title="Temperature, daily and as the mean of a week", ylabel="°C")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    mlflow.log_figure(figure, "plots/temperature.png")

    by_week = weather.set_index("day").groupby("station").rain.resample("W").sum().unstack(0)
    figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
    image = axes.imshow(by_week.T, aspect="auto", cmap="Blues")
    axes.set_yticks(range(len(by_week.columns)), by_week.columns)
    axes.set_xticks(range(0, len(by_week), 3), [day.strftime("%d %b") for day in by_week.index[::3]])
    axes.set_title("Rain in a week")
    figure.colorbar(image, ax=axes, label="mm")
    mlflow.log_figure(figure, "plots/rain.png")

    figure, axes = plt.subplots(figsize=(5, 4.5), layout="constrained")
    for station, rows in weather[weather.rain > 0].groupby("station"):
        axes.scatter(rows.temperature, rows.rain, s=16, alpha=0.6, label=f"{station}, {len(rows)} wet days")
    axes.set(title="Wet days", xlabel="°C", ylabel="mm")
    axes.legend(frameon=False)
    mlflow.log_figure(figure, "plots/wet days.svg")
    plt.close("all")


def log_tables_and_texts(weather: pd.DataFrame) -> None:
    summary = weather.groupby("station").agg(
        mean_temperature=("temperature", "mean"),
        rain=("rain", "sum"),
        wet_days=("rain", lambda rain: (rain > 0).sum()),
    )
    mlflow.log_table(summary.round(1).reset_index(), "tables/stations.json")
    mlflow.log_dict({"stations": STATIONS, "days": int(weather.day.nunique())}, "settings.yaml")
    rows = "".join(f"| {row.Index} | {row.rain:.0f} mm | {row.wet_days} |\n" for row in summary.itertuples())
    mlflow.log_text(
        f"# A season of weather\n\n| station | rain | wet days |\n|---|---|---|\n{rows}", "report.md"
    )
    mlflow.log_metrics({f"rain.{row.Index}": row.rain for row in summary.itertuples()})


def log_files(weather: pd.DataFrame) -> None:
    """A folder as it is, with folders in it."""
    with tempfile.TemporaryDirectory() as folder:
        for station, rows in weather.groupby("station"):
            directory = Path(folder, str(station))
            directory.mkdir()
            rows.drop(columns="station").to_csv(directory / "days.csv", index=False)
            extremes = {"warmest": rows.temperature.max(), "wettest": rows.rain.max()}
            (directory / "extremes.json").write_text(json.dumps(extremes))
        mlflow.log_artifacts(folder, "stations")


def read_back(run_id: str) -> None:
    print("\nArtifacts")
    for path in ("", "plots", "stations"):
        for file in mlflow.artifacts.list_artifacts(run_id=run_id, artifact_path=path):
            kind = "folder" if file.is_dir else f"{file.file_size:,} bytes"
            print(f"  {file.path:24} {kind}")
    print("\nRead back")
    print(mlflow.load_table("tables/stations.json", run_ids=[run_id]).to_string(index=False))
    print(mlflow.artifacts.load_dict(f"runs:/{run_id}/stations/Bergen/extremes.json"))
    local = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/stations/Lima/days.csv")
    print(f"{len(pd.read_csv(local))} days of Lima")


def find_by_dataset(experiment_id: str) -> None:
    runs = mlflow.search_runs(
        [experiment_id],
        filter_string="dataset.name = 'weather-training' AND dataset.context = 'training'",
        output_format="list",
    )
    print(f"\nRuns that were trained on weather-training: {len(runs)}")
    for dataset_input in runs[0].inputs.dataset_inputs:
        profile = json.loads(dataset_input.dataset.profile)
        print(f"  {dataset_input.dataset.name} ({dataset_input.dataset.digest}): {profile['num_rows']} rows")


if __name__ == "__main__":
    main()
