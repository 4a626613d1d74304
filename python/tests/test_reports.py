import json

import numpy as np
import pytest
from conftest import small

import kshot


@pytest.fixture(scope="module")
def evaluated(maml, alpaca):
    kshot.evaluate(maml, device="cpu", episodes=30)
    kshot.evaluate(alpaca, device="cpu", episodes=30)
    return maml, alpaca


def test_a_report(maml, tmp_path):
    out = tmp_path / "page.html"
    report = kshot.report(maml, out, device="cpu", threads=2)
    assert report.file == out and out.read_text().lower().startswith("<!doctype html>")
    assert report.name == "MAML" and report.evaluation.algorithm == "maml"
    assert report.numbers["steps"] == "12" and "test MSE" in report.numbers
    assert list(report.by_shots) == [1, 2, 5, 10, 20]
    assert "5 support and 5 query" in report.by_shots[5].table
    pytest.importorskip("pandas")
    frame = report.to_pandas()
    assert set(frame["shots"].dropna()) == {1, 2, 5, 10, 20} and frame["mse"].notna().any()


def test_a_quick_report_computes_nothing(alpaca, tmp_path):
    before = sorted(alpaca.folder.iterdir())
    report = kshot.report(alpaca, tmp_path / "page.html", quick=True)
    assert report.by_shots == {} and sorted(alpaca.folder.iterdir()) == before
    with pytest.raises(kshot.Error, match="no such run folder"):
        kshot.report(tmp_path / "nothing")


def test_a_comparison(evaluated, tmp_path):
    maml, alpaca = evaluated
    both = kshot.compare([maml, alpaca], tmp_path / "both.html")
    assert both.names == ["maml", "alpaca"] and both.warnings == []
    assert both.file.exists() and "Differences to maml" in both.text
    assert both.settings["algorithm"] == {"maml": '"maml"', "alpaca": '"alpaca"'}
    assert both.numbers["maml"]["steps"] == "12"
    mse = next(d for d in both.differences if (d.method, d.metric) == ("alpaca", "MSE"))
    scores = [
        kshot.evaluate(r, device="cpu", episodes=30).last.per_episode["mse"] for r in evaluated
    ]
    np.testing.assert_allclose(mse.value, np.mean(scores[1] - scores[0]), rtol=1e-9)
    assert mse.episodes == 30 and mse.low < mse.value < mse.high
    pytest.importorskip("pandas")
    assert list(both.to_pandas().columns)[:3] == ["method", "metric", "episodes"]


def test_what_cannot_be_compared(evaluated, tmp_path):
    maml, alpaca = evaluated
    with pytest.raises(kshot.Error, match="the same run folder is given twice"):
        kshot.compare([maml, maml], tmp_path / "c.html")
    with pytest.raises(kshot.Error, match="expected at least one"):
        kshot.compare([], tmp_path / "c.html")
    with pytest.raises(TypeError, match="runs: expected a list"):
        kshot.compare("runs/maml")
    assert not (tmp_path / "c.html").exists()


BANDIT = {
    "environment": "wheel",
    "trials": 3,
    "steps": 60,
    "last_steps": 20,
    "delta": [0.5],
    "agent": [{"type": "uniform"}, {"type": "linear_ts"}],
}


def test_bandits(tmp_path):
    seen = []
    results = kshot.bandit(
        BANDIT, {"steps": 50}, tmp_path / "b.json", on_result=lambda *r: seen.append(r[:2])
    )
    assert [s.agent for s in results.scores] == ["uniform", "linear_ts"]
    assert results.scores[0].cumulative == pytest.approx(100)
    assert results.scores[1].cumulative < 100 and results.data["steps"] == 50
    assert len(seen) == 2 and seen[0][1] == "uniform"
    assert (tmp_path / "b.json").exists() and (tmp_path / "b.html").exists()
    pytest.importorskip("pandas")
    assert list(results.to_pandas()["agent"]) == ["uniform", "linear_ts"]


def test_bandits_that_do_not_fit():
    with pytest.raises(kshot.ConfigError, match="trials"):
        kshot.bandit({**BANDIT, "trials": 0})
    with pytest.raises(TypeError, match="config: expected a path or a dict"):
        kshot.bandit(3)

    def stop(*result):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        kshot.bandit(BANDIT, on_result=stop)


def test_rows_out_of_distribution(protonet, tmp_path):
    kinds = ["open_set", "shift=3"]
    out = tmp_path / "ood.json"
    found = kshot.evaluate_ood(protonet, kinds, out=out, device="cpu", episodes=30)
    assert [k.kind for k in found.kinds] == kinds and found.file == out
    assert found.page == tmp_path / "ood.html" and found.page.exists()
    assert json.loads(out.read_text()) == found.data
    scores = {s.name: s for s in found.kinds[1].scores}
    assert all(s.auroc.low <= s.auroc.value <= s.auroc.high for s in scores.values())
    # These rows are shifted by three times their range, so that they are far from every class.
    assert max(s.auroc.value for s in scores.values()) > 0.8
    assert found.kinds[0].in_rows == found.data["out_of_distribution"][0]["in_rows"] > 0
    assert "AUROC" in found.table
    one = kshot.evaluate_ood(protonet, "open_set", device="cpu", episodes=5)
    assert one.file == protonet.folder / "evaluation-ood.json" and one.file.exists()
    assert len(one.kinds) == 1
    frame = pytest.importorskip("pandas") and found.to_pandas()
    assert list(frame.columns[:3]) == ["kind", "score", "auroc"]
    assert set(frame["kind"]) == set(kinds)


def test_what_is_no_kind(protonet, maml, tmp_path):
    out = tmp_path / "ood.json"
    with pytest.raises(kshot.Error, match="rotate"):
        kshot.evaluate_ood(protonet, "rotate", out=out)
    with pytest.raises(kshot.Error, match="kinds: expected at least one"):
        kshot.evaluate_ood(protonet, [], out=out)
    with pytest.raises(kshot.ConfigError, match="^overrides: evaluate.episodez"):
        kshot.evaluate_ood(protonet, "open_set", out=out, overrides={"evaluate.episodez": 3})
    assert not out.exists()


def test_a_sweep(tmp_path):
    config, out = small("maml"), tmp_path / "sweep"
    vary = {"inner": {"steps": [1, 2]}, "inner.learning_rate": [0.001, 0.01]}
    seen = []
    found = kshot.sweep(
        config, vary, {"train.steps": 6}, out, jobs=2, device="cpu", on_run=seen.append
    )
    assert len(found.runs) == len(seen) == 4 and found.folder == out
    assert all(run.status == "done" and run.step == 6 for run in found.runs)
    values = [run.value for run in found.runs]
    assert values == sorted(values) and found.best is found.runs[0]
    assert {tuple(run.values.items()) for run in found.runs} == {
        (("inner.learning_rate", rate), ("inner.steps", steps))
        for steps in ("1", "2")
        for rate in ("0.001", "0.01")
    }
    # A run of the sweep equals a training with these values.
    best = found.best
    changes = [f"{key}={value}" for key, value in best.values.items()]
    alone = kshot.train(
        config, ["train.steps=6", *changes], tmp_path / "alone", device="cpu", progress=False
    )
    assert alone.best.value == pytest.approx(best.value, rel=1e-12)
    assert kshot.load(best, device="cpu").config == kshot.load(alone, device="cpu").config
    # With `collect`, the same call returns the table of the existing runs, without training.
    again = kshot.sweep(config, vary, {"train.steps": 6}, out, device="cpu", collect=True)
    assert [r.value for r in again.runs] == values and again.table == found.table
    frame = pytest.importorskip("pandas") and found.to_pandas()
    assert list(frame["inner.steps"]) == [run.values["inner.steps"] for run in found.runs]


def test_a_random_sweep_of_a_file(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(kshot.Config(small("maml")).to_toml())
    vary = {"inner.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
    found = kshot.sweep(file, vary, out=tmp_path / "s", random=3, seed=4, device="cpu")
    rates = [float(run.values["inner.learning_rate"]) for run in found.runs]
    assert len(set(rates)) == 3 and all(1e-3 <= rate <= 1e-2 for rate in rates)


def test_what_is_wrong_with_a_sweep(tmp_path):
    out = tmp_path / "s"
    with pytest.raises(kshot.ConfigError, match="^overrides: inner.stepz: unknown key"):
        kshot.sweep(small("maml"), {"inner.stepz": [1, 2]}, out=out)
    with pytest.raises(kshot.Error, match="a range has infinitely many values"):
        kshot.sweep(small("maml"), {"inner.learning_rate": {"low": 0.1, "high": 1}}, out=out)
    with pytest.raises(TypeError, match="vary: expected a dict, got list"):
        kshot.sweep(small("maml"), ["inner.steps=[1]"], out=out)
    with pytest.raises(kshot.ConfigError, match="vary: .*inner.steps"):
        kshot.sweep(small("maml"), {"inner.steps": 3}, out=out)
    assert not out.exists()


def test_ctrl_c_ends_a_sweep(tmp_path):
    def stop(run):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        kshot.sweep(
            small("maml"), {"inner.steps": [1, 2, 3]}, out=tmp_path / "s", device="cpu", on_run=stop
        )
