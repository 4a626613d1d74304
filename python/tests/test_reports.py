import numpy as np
import pytest

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
