import subprocess
import sys

import numpy as np
import pytest
from conftest import small

import kshot

pd = pytest.importorskip("pandas")


def visits(patients=18, rows=8):
    rng = np.random.default_rng(4)
    table = []
    for patient in range(patients):
        base = rng.normal()
        for _ in range(rows):
            age = rng.integers(20, 80)
            ward = str(rng.choice(["east", "west", "none"]))
            day = pd.Timestamp("2024-01-01") + pd.Timedelta(days=int(rng.integers(300)))
            score = 100 + age + 10 * base + (5 if ward == "east" else 0)
            table.append((f"p{patient}", age, ward, day, bool(rng.integers(2)), score))
    return pd.DataFrame(table, columns=["patient", "age", "ward", "day", "smoker", "score"])


def config(data, **more):
    return small(
        "alpaca",
        network={"layers": [6, 12, 5], "activation": "tanh"},
        data={**data.config, "shots": 3, "queries": 4},
        **more,
    )


def losses(data, folder):
    run = kshot.train(config(data), out=folder, device="cpu", progress=False)
    return [r.loss for r in run.reports]


def test_a_frame_is_the_table_that_the_program_imports(tmp_path):
    frame = visits()
    frame.loc[frame["ward"] == "none", "ward"] = "north"  # "none" is a missing value in CSV
    data = kshot.data.from_frame(frame, task="patient", target="score", quiet=True)
    frame.assign(smoker=frame["smoker"].astype(int)).to_csv(tmp_path / "t.csv", index=False)
    table = kshot.import_table(
        tmp_path / "t.csv", tmp_path / "t.kshot", task="patient", target="score", dates=["day"]
    )
    assert data.input_shape == table.input_shape == (6,) and data.splits == table.splits
    assert data.columns == table.columns
    assert losses(data, tmp_path / "a") == losses(table, tmp_path / "b")


def test_training_adaptation_and_evaluation_on_a_frame(tmp_path):
    frame = visits()
    data = kshot.data.from_frame(frame, task="patient", target="score", quiet=True)
    run = kshot.train(config(data), out=tmp_path / "run", device="cpu", progress=False)
    assert kshot.evaluate(run, device="cpu", episodes=20).last.mse.episodes == 20
    learner = kshot.load(run, "cpu")
    own = frame[frame["patient"] == "p3"]
    task = learner.adapt(own[:5])
    p = task.predict(own[5:].drop(columns="score"))
    assert p.mean.shape == (3, 1) and 0 < p.mean.min() and p.mean.max() < 400
    # Computes the expected input by hand: numbers, one-hot categories and days, which are
    # standardized as in the import.
    parts = {c["name"]: c for c in learner.preprocessing["columns"]}

    def encoded(rows):
        scaled = lambda name, v: (v - parts[name]["mean"]) / parts[name]["std"]  # noqa: E731
        days = (rows["day"] - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
        wards = [(rows["ward"] == w).astype(float) for w in parts["ward"]["categories"]]
        columns = [scaled("age", rows["age"]), *wards, scaled("day", days)]
        return np.stack([*columns, scaled("smoker", rows["smoker"].astype(float))], axis=1)

    target = learner.preprocessing["targets"][0]
    y = (own["score"][:5] - target["mean"]) / target["std"]
    by_hand = learner.adapt(encoded(own[:5]), y.to_numpy(), units="network")
    expected = by_hand.predict(encoded(own[5:])).mean * target["std"] + target["mean"]
    np.testing.assert_allclose(p.mean, expected, rtol=1e-5)


def test_what_is_guessed_is_printed(capsys):
    frame = visits()
    kshot.data.from_frame(frame, task="patient", target="ward")
    text = capsys.readouterr().err
    assert "target ward: classes" in text and "age" in text and "divided" in text
    assert "until this process ends" in text
    kshot.data.from_frame(frame, task="patient", target="score", quiet=True)
    assert capsys.readouterr().err == ""


def test_categories_stay_names_even_where_a_csv_would_miss_them():
    data = kshot.data.from_frame(visits(), task="patient", target="score", quiet=True)
    assert any("ward" in line and "3" in line for line in data.columns)


def test_missing_values(tmp_path):
    frame = visits()
    frame.loc[2, "age"] = np.nan
    frame.loc[11, "ward"] = None
    frame.loc[20, "day"] = pd.NaT
    with pytest.raises(kshot.Error, match="DataFrame, row .*age"):
        kshot.data.from_frame(frame, task="patient", target="score", quiet=True)
    options = {"task": "patient", "target": "score", "quiet": True, "missing": "drop"}
    data = kshot.data.from_frame(frame, **options)
    assert sum(part["rows"] for part in data.splits.values()) == len(frame) - 3
    whole = frame.convert_dtypes()  # pandas' nullable types
    again = kshot.data.from_frame(whole, **options)
    assert losses(again, tmp_path / "a") == losses(data, tmp_path / "b")


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    frame = visits()
    frame.to_parquet(tmp_path / "t.parquet")
    options = {"task": "patient", "target": "score", "quiet": True}
    a = kshot.data.from_frame(tmp_path / "t.parquet", out=tmp_path / "a.kshot", **options)
    b = kshot.data.from_frame(frame, out=tmp_path / "b.kshot", **options)
    assert a.output.read_bytes() == b.output.read_bytes()
    with pytest.raises(ValueError, match="t.csv: expected a Parquet file"):
        kshot.data.from_frame("t.csv", **options)
    with pytest.raises(FileNotFoundError, match="no such file"):
        kshot.data.from_frame("t.parquet", **options)


@pytest.mark.parametrize(
    "change, options, error, message",
    [
        (lambda f: f, {"task": "clinic"}, ValueError, "task: no column 'clinic'"),
        (lambda f: f, {"target": "grade"}, ValueError, "target: no column 'grade'"),
        (lambda f: f, {"features": ["size"]}, ValueError, "features: no column 'size'"),
        (lambda f: f, {"task": None}, ValueError, "task: expected the column that tells"),
        (lambda f: f.to_numpy(), {}, TypeError, "frame: expected a pandas DataFrame"),
        (lambda f: f.assign(x=1j), {}, TypeError, "column 'x': expected numbers"),
        (lambda f: f.assign(x=[[1]] * len(f)), {}, TypeError, "column 'x', row 0: expected"),
        (lambda f: pd.concat([f, f], axis=1), {}, ValueError, "two columns are named"),
        (lambda f: f.assign(age=np.inf), {}, kshot.Error, "age"),
    ],
)
def test_frames_that_do_not_fit(change, options, error, message):
    with pytest.raises(error, match=message):
        kshot.data.from_frame(
            change(visits()), **{"task": "patient", "target": "score", "quiet": True, **options}
        )


def test_frames_for_a_run_without_a_table(maml):
    with pytest.raises(TypeError, match="x: a DataFrame, but the run was not trained on a table"):
        kshot.load(maml, "cpu").adapt(pd.DataFrame({"x": [1.0]}))


def embeddings(classes=20, rows=10, width=6):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(classes, 1, width)) * 3 + rng.normal(size=(classes, rows, width))
    names = np.array([f"kind {c}" for c in range(classes)])
    return x.reshape(-1, width).astype(np.float32), np.repeat(names, rows)


def head(data, folder):
    tables = {"network": {"type": "linear", "layers": [6, 4]}}
    tables["data"] = {**data.config, "ways": 3, "shots": 2, "queries": 3}
    return kshot.train(small("protonet", **tables), out=folder, device="cpu", progress=False)


def test_classes_from_arrays_frames_and_their_splits(tmp_path):
    x, y = embeddings()
    arrays = kshot.data.from_arrays(x, y, out=tmp_path / "a.kshot", quiet=True)
    vectors = pd.DataFrame({"embedding": list(x), "kind": y})
    columns = pd.DataFrame(x, columns=[f"f{i}" for i in range(6)]).assign(kind=y)
    expected = head(arrays, tmp_path / "a")
    for name, frame in {"b": vectors, "c": columns}.items():
        data = kshot.data.from_frame(frame, target="kind", quiet=True)
        run = head(data, tmp_path / name)
        assert [r.loss for r in run.reports] == [r.loss for r in expected.reports]
    splits = {
        "train": [f"kind {c}" for c in range(12)],
        "test": [f"kind {c}" for c in range(12, 20)],
    }
    data = kshot.data.from_arrays(x, y, splits=splits, quiet=True)
    assert [data.splits[s]["groups"] for s in ("train", "validation", "test")] == [12, 0, 8]
    images = kshot.data.from_arrays(np.zeros((200, 8, 8), np.uint8), y, layout="hw", quiet=True)
    assert images.input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    "x, y, error, message",
    [
        (np.zeros((4, 2)), [1, 2], ValueError, r"y: expected shape \(4,\), got \(2,\)"),
        (np.zeros(4), [1, 2, 3, 4], ValueError, r"x: expected shape \(rows, features\)"),
        (np.zeros((2, 2)), [0.5, 1], TypeError, "y: expected whole numbers or names"),
        (np.array([["a"], ["b"]]), [1, 2], TypeError, "x: expected real numbers"),
        (np.zeros((2, 2)), np.array(["a", None], object), ValueError, "y: row 1 has no class"),
    ],
)
def test_arrays_that_do_not_fit(x, y, error, message):
    with pytest.raises(error, match=message):
        kshot.data.from_arrays(x, y, quiet=True)


def test_splits_that_do_not_fit():
    x, y = embeddings()
    with pytest.raises(ValueError, match="'kind 99' is none of the classes"):
        kshot.data.from_arrays(x, y, splits={"train": ["kind 99"]}, quiet=True)
    with pytest.raises(TypeError, match="expected a list of classes"):
        kshot.data.from_arrays(x, y, splits={"train": "kind 1"}, quiet=True)


def test_hugging_face_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    x, y = embeddings()
    names = sorted(set(y))
    features = datasets.Features(
        {
            "embedding": datasets.Sequence(datasets.Value("float32"), length=6),
            "kind": datasets.ClassLabel(names=names),
        }
    )
    columns = {"embedding": x.tolist(), "kind": [names.index(k) for k in y]}
    whole = datasets.Dataset.from_dict(columns, features=features)
    data = kshot.data.from_dataset(whole, target="kind", quiet=True)
    expected = head(kshot.data.from_arrays(x, y, quiet=True), tmp_path / "a")
    run = head(data, tmp_path / "b")
    assert [r.loss for r in run.reports] == [r.loss for r in expected.reports]
    both = datasets.DatasetDict({"train": whole, "test": whole})
    pooled = kshot.data.from_dataset(both, target="kind", quiet=True)
    assert sum(s["rows"] for s in pooled.splits.values()) == 2 * len(whole)
    table = datasets.Dataset.from_pandas(visits(), preserve_index=False)
    tasks = kshot.data.from_dataset(table, task="patient", target="score", quiet=True)
    assert tasks.kind == "tasks"
    with pytest.raises(ValueError, match="dataset: no column 'label'"):
        kshot.data.from_dataset(whole, target="label")
    with pytest.raises(TypeError, match="dataset: expected a datasets.Dataset"):
        kshot.data.from_dataset([1, 2], target="label")


def test_a_temporary_file_goes_with_the_process():
    code = (
        "import kshot, numpy as np, os\n"
        "x = np.random.default_rng(0).normal(size=(60, 3))\n"
        "data = kshot.data.from_arrays(x, np.arange(60) % 10, quiet=True)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    raise SystemExit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(data.output, data.output.exists())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    path, existed = done.stdout.split()
    from pathlib import Path

    assert existed == "True" and not Path(path).exists()
