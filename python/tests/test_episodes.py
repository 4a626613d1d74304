import traceback

import numpy as np
import pytest
from conftest import small

import kshot


class Lines(kshot.EpisodeSource):
    support = 4
    query = 5

    def episode(self, rng, split):
        slope = rng.uniform(-1, 1)
        rows = rng.integers(1, 5)
        x = rng.uniform(-2, 2, (rows + 5, 1))
        y = slope * x
        return x[:rows], y[:rows], x[rows:], y[rows:]


class Blobs(kshot.EpisodeSource):
    outputs = 3

    def episode(self, rng, split):
        centres = rng.normal(size=(3, 6)) * 5
        y = np.arange(9) % 3
        x = centres[y] + rng.normal(size=(9, 6))
        return x[:6], y[:6], x[6:], y[6:]


def train(source, folder, config=None, **options):
    return kshot.train(config or small("maml"), out=folder, source=source, device="cpu", **options)


def test_training_and_evaluation_on_tasks_of_ones_own(tmp_path):
    a = train(Lines(), tmp_path / "a", threads=1)
    b = train(Lines(), tmp_path / "b", threads=4)
    assert a.step == 12
    assert [r.loss for r in a.reports] == [r.loss for r in b.reports]
    result = kshot.evaluate(a, source=Lines(), device="cpu", episodes=25)
    assert result.last.mse.episodes == 25
    assert result.data["source"] == "Lines"
    assert not (a.folder / "evaluation.json").exists()


def test_an_evaluation_without_the_source_says_so(tmp_path, maml, capfd):
    run = train(Lines(), tmp_path / "run")
    kshot.evaluate(run, device="cpu", episodes=5)
    text = capfd.readouterr().err
    assert "was trained on tasks of a program's own (Lines)" in text and "sinusoids" in text
    kshot.evaluate(run, source=Lines(), device="cpu", episodes=5)
    kshot.evaluate(maml, device="cpu", episodes=5, shots=2)
    assert "program's own" not in capfd.readouterr().err


def test_classes(tmp_path):
    config = small("protonet", network={"type": "linear", "layers": [6, 4]}, data={})
    run = train(Blobs(), tmp_path / "run", config)
    result = kshot.evaluate(run, source=Blobs(), device="cpu", episodes=50)
    assert result.last.accuracy.mean > 0.9


def test_an_exception_reaches_the_caller_with_its_traceback(tmp_path):
    class Failing(Lines):
        calls = 0

        def episode(self, rng, split):
            Failing.calls += 1
            if Failing.calls > 30:
                raise LookupError("no more tasks")
            return super().episode(rng, split)

    with pytest.raises(LookupError, match="no more tasks") as caught:
        train(Failing(), tmp_path / "run", threads=3)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "episode"


@pytest.mark.parametrize(
    "part, value, error, message",
    [
        (0, np.zeros((9, 1)), ValueError, "support_x: 9 rows, expected at most 4"),
        (0, np.zeros((2, 3)), ValueError, r"support_x: expected shape \(rows, 1\)"),
        (1, np.zeros(7), ValueError, "support_y: expected shape"),
        (3, "no numbers", TypeError, "query_y: expected real numbers"),
    ],
)
def test_episodes_that_do_not_fit(tmp_path, part, value, error, message):
    class Wrong(Lines):
        calls = 0

        def episode(self, rng, split):
            Wrong.calls += 1
            drawn = list(super().episode(rng, split))
            if Wrong.calls > 5:
                drawn[part] = value
            return tuple(drawn)

    with pytest.raises(error, match=message):
        train(Wrong(), tmp_path / "run")


def test_sources_that_are_none(tmp_path):
    with pytest.raises(TypeError, match="source: expected a kshot.EpisodeSource, got int"):
        train(3, tmp_path / "run")
    with pytest.raises(NotImplementedError):
        train(kshot.EpisodeSource(), tmp_path / "run")

    class Three(kshot.EpisodeSource):
        def episode(self, rng, split):
            return 1, 2, 3

    with pytest.raises(TypeError, match="episode: expected a tuple"):
        train(Three(), tmp_path / "run")
