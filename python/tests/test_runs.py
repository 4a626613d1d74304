import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import small, trained

import kshot


def test_training_gives_a_run(maml):
    assert maml.step == 12 and maml.reason == "steps"
    assert maml.folder.is_dir() and os.fspath(maml) == str(maml.folder)
    assert [r.step for r in maml.reports] == [3, 6, 9, 12]
    assert "gradient_snr" in maml.reports[0].metrics
    assert [v.step for v in maml.validations] == [6, 12]
    assert maml.best.step in (6, 12) and maml.best.metric == "mse"


def test_reports_as_a_table(maml):
    pytest.importorskip("pandas")
    frame = maml.to_pandas()
    assert list(frame["step"]) == [3, 6, 9, 12]
    assert "gradient_snr" in frame.columns


def test_the_default_folder_is_the_programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(kshot.Config(small("maml")).to_toml())
    for expected in ("runs/mine", "runs/mine-2"):
        run = kshot.train("mine.toml", {"train.steps": 1, "train.validate_every": 0})
        assert str(run.folder) == expected and run.step == 1
    run = kshot.train(small("maml"), {"train.steps": 1, "train.validate_every": 0})
    assert str(run.folder) == "runs/maml"


def test_resuming_gives_the_same_bits(tmp_path, maml, task):
    part = kshot.train(
        small("maml"), {"train.steps": 5}, tmp_path / "part", device="cpu", progress=False
    )
    assert part.step == 5
    whole = kshot.train(resume=part, overrides={"train.steps": 12}, device="cpu", progress=False)
    assert whole.step == 12 and whole.folder == part.folder
    x, y, query = task
    a = kshot.load(whole.folder / "last.safetensors", "cpu").adapt(x, y).predict(query)
    b = kshot.load(maml.folder / "last.safetensors", "cpu").adapt(x, y).predict(query)
    np.testing.assert_array_equal(a.mean, b.mean)


def test_what_is_wrong_with_a_training(tmp_path, maml):
    with pytest.raises(kshot.ConfigError, match="train.steps"):
        kshot.train(small("maml"), {"train.steps": "many"}, tmp_path / "run")
    with pytest.raises(kshot.ConfigError, match="data.path"):
        kshot.train(small("maml", data={"source": "file"}), out=tmp_path / "run")
    with pytest.raises(kshot.Error, match="maml"):
        kshot.train(small("maml"), out=maml)
    with pytest.raises(TypeError, match="config: expected"):
        kshot.train()
    with pytest.raises(TypeError, match="out: expected without resume"):
        kshot.train(resume=maml, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_exception_in_a_callback_ends_the_training_with_a_checkpoint(tmp_path):
    def stop(report):
        if report.step >= 6:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        kshot.train(small("maml"), out=tmp_path / "run", on_report=stop, device="cpu")
    rest = kshot.train(resume=tmp_path / "run", device="cpu")
    assert rest.step == 12 and rest.reports[0].step > 6


def test_ctrl_c_writes_a_checkpoint(tmp_path):
    started = threading.Event()

    def interrupt():
        started.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    config = small("maml", train={"steps": 10**7, "validate_every": 0, "log_every": 1})
    with pytest.raises(KeyboardInterrupt):
        kshot.train(
            config, out=tmp_path / "run", device="cpu", on_report=lambda report: started.set()
        )
    killer.join()
    step = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    steps = {"train.steps": step + 20}
    rest = kshot.train(resume=tmp_path / "run", overrides=steps, device="cpu")
    assert rest.step == step + 20
    assert rest.tasks == rest.step * 32


def test_evaluation_is_the_programs(maml):
    result = kshot.evaluate(maml, device="cpu", episodes=30)
    assert result.algorithm == "maml" and result.split == "test"
    assert [s.inner_steps for s in result.steps] == [0, 1, 2]
    assert result.last.mse.episodes == 30 and result.last.accuracy is None
    assert len(result.last.per_episode["mse"]) == 30
    np.testing.assert_allclose(result.last.per_episode["mse"].mean(), result.last.mse.mean)
    assert all(s.inner_steps is None for s in result.baselines)
    assert all(len(scores.T) == 30 for scores in result.last.per_episode.values())
    assert "maml" in result.table
    assert json.loads((maml.folder / "evaluation.json").read_text()) == result.data


def test_evaluation_of_classes(protonet, tmp_path):
    pytest.importorskip("pandas")
    out = tmp_path / "e.json"
    result = kshot.evaluate(protonet, device="cpu", shots=1, split="validation", out=out)
    assert result.split == "validation"
    assert result.data["shots"] == [1, 1]
    assert 0.5 < result.last.accuracy.mean <= 1
    frame = result.to_pandas()
    assert frame["accuracy"].notna().all() and out.exists()
    with pytest.raises(ValueError, match='split: expected "train"'):
        kshot.evaluate(protonet, split="tests")
    with pytest.raises(kshot.Error, match="evaluate.episodes"):
        kshot.evaluate(protonet, episodes=0)


def test_calibration_of_values(alpaca, task):
    fitted = kshot.calibrate(alpaca, device="cpu", episodes=60)
    assert fitted.file == alpaca.folder / "calibration.json" and fitted.value > 0
    assert fitted.description == f"variance factor {fitted.value:.4g}"
    assert fitted.nll_after <= fitted.nll_before
    x, y, query = task
    plain = kshot.load(alpaca, "cpu").adapt(x, y).predict(query)
    calibrated = kshot.load(alpaca, "cpu", calibrated=True).adapt(x, y).predict(query)
    np.testing.assert_allclose(calibrated.mean, plain.mean, rtol=1e-6)
    np.testing.assert_allclose(calibrated.std, plain.std * np.sqrt(fitted.value), rtol=1e-5)
    several = kshot.load(alpaca, "cpu", calibrated=True).adapt_many([x, x[:2]], [y, y[:2]])
    many = several.predict([query, query])
    np.testing.assert_allclose(many[0].std, calibrated.std, rtol=1e-5)
    scores = kshot.evaluate(alpaca, device="cpu", episodes=20, calibrated=True, baselines=False)
    assert "calibrated" in scores.table


def test_what_cannot_be_calibrated(maml, abml):
    with pytest.raises(kshot.Error):  # a run with squared error predicts no distribution
        kshot.calibrate(maml, device="cpu")
    with pytest.raises(kshot.Error, match="calibrat"):
        kshot.load(abml, "cpu", calibrated=True)


@pytest.fixture(scope="module")
def classifier(runs, class_file):
    data = {"source": "file", "path": class_file, "ways": 3, "shots": 2, "queries": 3}
    return trained(
        runs / "classifier",
        small("maml", network={"layers": [6, 8, 3]}, loss={"type": "cross_entropy"}, data=data),
    )


def test_embeddings(runs, classifier, tmp_path):
    embedder = kshot.Embedder(classifier, device="cpu")
    assert embedder.input_shape == (6,) and embedder.features == 8
    x = np.load(runs / "classes.npy").reshape(-1, 6)
    features = embedder(x)
    assert features.shape == (240, 8) and features.dtype == np.float32
    written = kshot.embed(classifier, tmp_path / "f.npz", device="cpu")
    assert written.rows == 240 and written.features == 8
    stored = np.load(tmp_path / "f.npz")
    assert stored["x"].shape == (240, 8)
    np.testing.assert_allclose(np.sort(stored["x"], axis=0), np.sort(features, axis=0), rtol=1e-5)
    with pytest.raises(ValueError, match=r"x: expected shape \(rows, 6\)"):
        embedder(np.zeros((2, 5)))


def test_imports(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(10, 4, 3)).astype(np.float32))
    summary = kshot.import_arrays(
        tmp_path / "x.npy", tmp_path / "x.kshot", fractions=(0.5, 0.2, 0.3), standardise=True
    )
    assert summary.kind == "classes" and summary.input_shape == (3,)
    assert summary.splits["train"] == {"groups": 5, "rows": 20}
    rows = ["patient,age,score"] + [f"p{i // 4},{20 + i},{i % 7}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    summary = kshot.import_table(
        tmp_path / "t.csv", tmp_path / "t.kshot", task="patient", target="score"
    )
    assert summary.kind == "tasks" and len(summary.columns) > 0
    with pytest.raises(kshot.Error, match="t.csv"):
        kshot.import_table(tmp_path / "t.csv", tmp_path / "u.kshot", task="clinic", target="score")
    with pytest.raises(ValueError, match='layout: expected one of .*, got "sideways"'):
        kshot.import_arrays(tmp_path / "x.npy", tmp_path / "y.kshot", layout="sideways")
    with pytest.raises(TypeError, match="min_examples: unexpected type str"):
        kshot.import_arrays(tmp_path / "x.npy", tmp_path / "y.kshot", min_examples="many")
    with pytest.raises(ValueError, match="splits: expected train"):
        kshot.import_arrays(tmp_path / "x.npy", tmp_path / "y.kshot", splits={"holiday": "a.txt"})
    assert not (tmp_path / "y.kshot").exists()


def test_the_interpreter_exits_quietly(maml):
    code = (
        "import kshot, numpy as np\n"
        f"task = kshot.load({str(maml.folder)!r}, 'cpu', 2).adapt(np.zeros((2, 1)), np.zeros(2))\n"
        "print(task.predict(np.zeros((3, 1))).mean.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(3, 1)\n", "")


def test_version():
    text = Path(__file__).parents[2].joinpath("CMakeLists.txt").read_text()
    assert f"project(kshot VERSION {kshot.__version__}" in text


class Alarm(Exception):
    pass


@contextmanager
def alarm(seconds):
    """Raises Alarm in the main thread after `seconds`, as Ctrl-C raises KeyboardInterrupt."""

    def ring(number, frame):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupted(work, seconds=0.1):
    """Interrupts work that takes far longer. Returns how long it continued after the signal."""
    start = time.monotonic()
    with pytest.raises(Alarm), alarm(seconds):
        work()
    return time.monotonic() - start - seconds


def test_work_that_is_interrupted_ends_soon_and_writes_nothing(maml, abml, tmp_path):
    out = tmp_path / "out.json"
    many = {"evaluate.samples": 100, "evaluate.episodes": 100_000}
    late = [
        interrupted(lambda: kshot.evaluate(abml, overrides=many, out=out, device="cpu")),
        interrupted(lambda: kshot.calibrate(abml, overrides=many, device="cpu")),
    ]
    run = kshot.train(small("maml", evaluate={"episodes": 300_000}), out=tmp_path / "run")
    late.append(interrupted(lambda: kshot.report(run, out, device="cpu")))
    learner = kshot.load(abml, "cpu", overrides={"evaluate.samples": 100})
    xs = np.zeros((50_000, 4, 1), np.float32)
    fitted = learner.adapt_many(xs, xs)
    late.append(interrupted(lambda: fitted.predict(xs)))
    bandit = {"environment": "wheel", "steps": 10**6, "agent": [{"type": "linear_ts"}]}
    late.append(interrupted(lambda: kshot.bandit(bandit, out=out)))
    assert max(late) < 5  # seconds; the work itself would take minutes
    assert not out.exists() and not (abml.folder / "calibration.json").exists()
    assert not (run.folder / "evaluation.json").exists()


def test_imports_that_are_interrupted_leave_nothing(tmp_path):
    x = np.random.default_rng(0).normal(size=(160_000, 8))
    np.save(tmp_path / "x.npy", x.reshape(40, 4_000, 8))
    table = "task,a,b,c,d,e,f,y\n" + "\n".join(
        f"{i // 100}," + ",".join(map(str, row[:7])) for i, row in enumerate(x)
    )
    (tmp_path / "t.csv").write_text(table)
    out = tmp_path / "x.kshot"
    interrupted(lambda: kshot.import_arrays(tmp_path / "x.npy", out, standardise=True), 0.05)
    assert not out.exists()
    for seconds in (0.03, 0.2):
        interrupted(
            lambda: kshot.import_table(tmp_path / "t.csv", out, task="task", target="y"), seconds
        )
        assert not out.exists()


def test_an_embedding_that_is_interrupted_leaves_nothing(classifier, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((20, 20000, 6), np.float32))
    kshot.import_arrays(tmp_path / "x.npy", tmp_path / "x.kshot", fractions=[0.6, 0.2, 0.2])
    embedder = kshot.Embedder(classifier, device="cpu", threads=1)
    interrupted(lambda: embedder.embed_file(tmp_path / "f.kshot", tmp_path / "x.kshot"), 0.02)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.kshot", "x.npy"]
