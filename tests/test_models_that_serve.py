"""The models that a registry keeps serve a replay."""

from pathlib import Path

import polars as pl
import pytest

from recoup.errors import ModelError
from recoup.events import concat_batches, encode
from recoup.friction.steps import is_page
from recoup.runners.hesitation import train_hesitation_on
from recoup.runners.replay import replay_source
from recoup.runners.serving import load_serving
from recoup.simulator import load_scenario, write_simulation
from recoup.sources import open_source


def test_a_replay_uses_the_models_that_a_registry_has(tmp_path: Path) -> None:
    log, registry = tmp_path / "log", tmp_path / "models"
    write_simulation(log, visitors=800, days=0.5, seed=3, scenario=load_scenario("default"))
    source = open_source(log / "events.parquet")
    with pytest.raises(ModelError):
        load_serving(registry)
    train_hesitation_on(source, registry)
    models = load_serving(registry)
    assert (models.intent, models.repeat) == (None, None)
    assert list(models.served) == ["hesitation"]
    assert models.hesitation is not None
    assert models.names["with hesitation"] == models.hesitation.hash[:12]
    summary = replay_source(
        source,
        tmp_path / "out",
        title="s",
        identity="s",
        hesitation=models.hesitation,
        served=models.served,
    )
    [health] = summary.models
    batch = concat_batches(each.batch for each in source.batches())
    told = encode(batch, ("event", "element"))
    assert (health.name, health.version) == ("hesitation", 1)
    assert health.rows == int(is_page(told["event"], told["element"]).sum())
    assert health.inputs > 60
    assert health.calibration_error is not None
    assert health.predicted == pytest.approx(health.observed, abs=0.01)
    waits = pl.read_parquet(tmp_path / "out" / "hesitations.parquet")
    made = pl.read_parquet(tmp_path / "out" / "decisions.parquet")
    assert waits.height > 50
    assert made.filter(pl.col("reason") == "D9").height > 0
    assert not made["executed"].any()
    assert summary.hesitation.level == 0.9
    assert summary.hesitation.total is not None
    assert summary.hesitation.total.long is not None
