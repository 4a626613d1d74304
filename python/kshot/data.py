"""Data files from data in memory: arrays, pandas, Parquet, Hugging Face datasets.

Each function imports its data as the program imports files (docs/own-data.md), and returns an
ImportSummary. The summary may be given wherever a data file is expected:

    data = kshot.data.from_frame(df, task="patient", target="score", out="patients.kshot")
    run = kshot.train({"algorithm": "alpaca", "network": ..., "data": data.config})

The functions print to standard error what they had to guess, unless `quiet` is set. Without `out`
the data file is a temporary file, which is removed when the process ends.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import as_array
from ._imports import ImportSummary, PathLike, import_arrays, run_import

__all__ = ["from_arrays", "from_dataset", "from_frame"]

Array = npt.NDArray[Any]
_numbers = itertools.count(1)
_folder: tuple[int, str] | None = None


def _temporary() -> Path:
    """Returns a new file name in a folder that is removed when this process ends."""
    import shutil
    import tempfile

    global _folder
    if _folder is None or _folder[0] != os.getpid():
        own = os.getpid()
        folder = tempfile.mkdtemp(prefix="kshot-data-")
        _folder = (own, folder)

        def remove() -> None:
            if os.getpid() == own:  # a forked child inherits this function, and must not remove
                shutil.rmtree(folder, ignore_errors=True)

        atexit.register(remove)
    return Path(_folder[1]) / f"data-{next(_numbers)}.kshot"


def _say(summary: ImportSummary, guessed: Sequence[str], out: PathLike | None, quiet: bool) -> None:
    if quiet:
        return
    groups = ", ".join(f"{name} {part['groups']}" for name, part in summary.splits.items())
    lines = [*guessed, *summary.columns, *summary.notes]
    lines.append(f"{summary.kind} divided {summary.division}: {groups}")
    if out is None:
        lines.append(f"{summary.output}: lasts until this process ends (out=FILE keeps it)")
    for line in lines:
        print(f"kshot.data: {line}", file=sys.stderr)


def from_arrays(
    x: Any,
    y: Any,
    out: PathLike | None = None,
    *,
    splits: Mapping[str, Sequence[Any]] | None = None,
    fractions: Sequence[float] | None = None,
    seed: int | None = None,
    standardise: bool = False,
    layout: str | None = None,
    min_examples: int | None = None,
    quiet: bool = False,
) -> ImportSummary:
    """Makes a data file of classes, from which few-shot tasks are drawn.

    x: [rows, features], or images [rows, height, width], or images with channels (see `layout`).
    y: [rows], the class of each row: whole numbers, strings or booleans.
    out: the data file to write; None: a temporary file.
    splits: the classes of each split, {"train": ["ant", "bee"], "test": ["cat"]}. Classes that are
        not listed are left out.
    fractions, seed: the shares of train, validation and test in a random division of the classes,
        which is used without `splits`. The default is 0.64, 0.16, 0.2.
    standardise: whether to give every feature of vectors the mean 0 and the standard deviation 1
        over the training classes.
    layout: the order of the axes of images: "hwc", "chw" or "hw".
    min_examples: classes with fewer rows are left out.
    quiet: whether to print nothing.

    Raises TypeError and ValueError for arrays that do not fit, and Error for what the import
    refuses.
    """
    import csv
    import tempfile

    rows = as_array(x, "x")
    labels = as_array(y, "y")
    if rows.dtype.kind not in "fiub":
        raise TypeError(f"x: expected real numbers, got dtype {rows.dtype}")
    if rows.ndim < 2:
        raise ValueError(f"x: expected shape (rows, features) or images, got {rows.shape}")
    if labels.shape != (len(rows),):
        raise ValueError(f"y: expected shape ({len(rows)},), got {labels.shape}")
    if labels.dtype.kind == "f" and (labels == np.round(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubUSO":
        raise TypeError(f"y: expected whole numbers or names (classes), got dtype {labels.dtype}")
    if labels.dtype.kind == "O":
        missing = [i for i, label in enumerate(labels) if label is None or label != label]
        if missing:
            raise ValueError(f"y: row {missing[0]} has no class")
        labels = labels.astype(str)
    classes, index = np.unique(labels, return_inverse=True)
    names = [str(name) for name in classes.tolist()]
    guessed = [] if layout or rows.ndim == 2 else [f"x: images, {len(rows)} of {rows.shape[1:]}"]
    target = _temporary() if out is None else Path(os.fspath(out))
    with tempfile.TemporaryDirectory(prefix="kshot-") as folder:
        source = Path(folder) / "arrays.npz"
        np.savez(source, x=rows, y=index.astype(np.int64))
        table = Path(folder) / "classes.tsv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["index", "name"])
            writer.writerows(enumerate(names))
        lists = None if splits is None else _class_lists(splits, names, Path(folder))
        summary = import_arrays(
            source,
            target,
            classes=table,
            layout=layout,
            standardise=standardise,
            splits=lists,
            fractions=fractions,
            seed=seed,
            min_examples=min_examples,
            progress=False,
        )
    _say(summary, guessed, out, quiet)
    return summary


def _class_lists(
    splits: Mapping[str, Sequence[Any]], names: list[str], folder: Path
) -> dict[str, str]:
    lists = {}
    for split, chosen in splits.items():
        if isinstance(chosen, (str, bytes)):
            raise TypeError(f"splits[{split!r}]: expected a list of classes, got a string")
        texts = [str(c.item() if hasattr(c, "item") else c) for c in chosen]
        unknown = [text for text in texts if text not in names]
        if unknown:
            raise ValueError(f"splits[{split!r}]: {unknown[0]!r} is none of the classes of y")
        file = folder / f"{split}.txt"
        file.write_text("".join(text + "\n" for text in texts))
        lists[split] = str(file)
    return lists


def is_frame(data: Any) -> bool:
    """Returns whether `data` is a pandas DataFrame. Does not import pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _cells(column: Any, name: str) -> tuple[Any, str]:
    """Returns the cells of a column as the engine takes them, and the kind of the column.

    The kind is "number" (float64 cells), "category" or "date" (texts; "" is a missing cell).
    Raises TypeError for a column of another type.
    """
    import pandas as pd
    from pandas.api import types

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _texts(column, name), "category"
    if types.is_datetime64_any_dtype(dtype):
        if getattr(dtype, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        texts = column.dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
        return ["" if pd.isna(text) else str(text) for text in texts], "date"
    if types.is_bool_dtype(dtype) or (
        types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)
    ):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.ascontiguousarray(numbers), "number"
    if types.is_object_dtype(dtype) or types.is_string_dtype(dtype):
        return _texts(column, name), "category"
    raise TypeError(f"column {name!r}: expected numbers, text, categories or dates, got {dtype}")


def _texts(column: Any, name: str) -> list[str]:
    import pandas as pd

    texts = []
    for row, value in enumerate(column):
        if hasattr(value, "__len__") and not isinstance(value, str):
            raise TypeError(
                f"column {name!r}, row {row}: expected a number or text, got "
                f"{type(value).__name__}; vectors are for classes (without task)"
            )
        texts.append("" if pd.isna(value) else str(value))
    return texts


def frame_columns(frame: Any, wanted: Sequence[str] | None = None) -> list[tuple[str, Any, str]]:
    """Returns (name, cells, kind) of the frame's columns, or of those named in `wanted`."""
    names = [str(name) for name in frame.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"frame: two columns are named {twice[0]!r}")
    columns = []
    for i, name in enumerate(names):
        if wanted is None or name in wanted:
            columns.append((name, *_cells(frame.iloc[:, i], name)))
    return columns


def _require(frame: Any, names: Sequence[str], option: str) -> None:
    known = [str(name) for name in frame.columns]
    for name in names:
        if name not in known:
            raise ValueError(f"{option}: no column {name!r}; there are {', '.join(known)}")


def _frame(source: Any) -> Any:
    if is_frame(source):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fspath(source))
        if path.suffix.lower() not in (".parquet", ".pq"):
            raise ValueError(
                f"{path}: expected a Parquet file (.parquet); CSV is read by kshot.import_table"
            )
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        import pandas as pd

        return pd.read_parquet(path)
    raise TypeError(
        "frame: expected a pandas DataFrame or the path of a Parquet file, got "
        + type(source).__name__
    )


def from_frame(
    frame: Any,
    *,
    target: str | Sequence[str],
    task: str | None = None,
    features: Sequence[str] | None = None,
    out: PathLike | None = None,
    classification: bool | None = None,
    split_column: str | None = None,
    categorical: Sequence[str] = (),
    missing: str | None = None,
    raw_targets: bool | None = None,
    raw_inputs: bool | None = None,
    fractions: Sequence[float] | None = None,
    seed: int | None = None,
    standardise: bool = False,
    quiet: bool = False,
) -> ImportSummary:
    """Makes a data file of tasks or classes from a pandas DataFrame or a Parquet file.

    With `task`, every value of that column is a task, as in `kshot.import_table`. Numbers are
    standardised over the training tasks. Text and categories become one number per category. Dates
    become days. The target is a class where its column is text, a category or a boolean, and
    otherwise a number.

    Without `task`, the target is the class of each row, and few-shot tasks are drawn from the
    classes, as in `from_arrays`. The features are columns of numbers, or columns whose cells are
    vectors.

    frame: the DataFrame, or the path of the Parquet file.
    target: the name of the column of the targets, or a list of names.
    task: the name of the column that distinguishes the tasks.
    features: the names of the columns to learn from; None: all other columns.
    out: the data file to write; None: a temporary file.
    classification: whether the target is a class (with `task`); None: the type of the column
        decides.
    split_column: a column with "train", "validation" or "test", which is the same in all rows of a
        task.
    categorical: names of columns of numbers that are categories.
    missing: what happens with missing values: "error" (the default), "mean" or "drop".
    raw_targets, raw_inputs: whether to leave targets or inputs without standardisation.
    fractions, seed: the shares of train, validation and test in a random division.
    standardise: whether to standardise the features (without `task`).
    quiet: whether to print nothing.

    Raises TypeError and ValueError for data that do not fit, and Error for what the import refuses.
    """
    options = dict(locals())
    # The remaining arguments are options of the import with the same names.
    for name in ("frame", "target", "features", "out", "standardise", "quiet"):
        del options[name]
    frame = _frame(frame)
    targets = [target] if isinstance(target, str) else list(target)
    _require(frame, targets, "target")
    _require(frame, list(categorical), "categorical")
    if task is not None:
        _require(frame, [task], "task")
    if split_column is not None:
        _require(frame, [split_column], "split_column")
    if features is not None:
        _require(frame, list(features), "features")
    if task is None:
        if split_column is not None or len(targets) != 1 or classification is False:
            raise ValueError("task: expected the column that tells the tasks apart")
        return _classes(
            frame, targets[0], features, out, fractions, seed, standardise, missing, quiet
        )
    roles = [task, *targets, *([] if split_column is None else [split_column])]
    wanted = None if features is None else [*roles, *features]
    columns = frame_columns(frame, wanted)
    kinds = {name: kind for name, _, kind in columns}
    guessed = []
    if classification is None:
        booleans = [str(frame[t].dtype) in ("bool", "boolean") for t in targets]
        classification = len(targets) == 1 and (kinds[targets[0]] == "category" or booleans[0])
        what = "classes" if classification else "numbers"
        guessed.append(f"target {', '.join(targets)}: {what} (classification=)")
    own = [name for name in kinds if name not in roles]
    options.update(
        source="DataFrame",
        output=_temporary() if out is None else out,
        progress=False,
        targets=targets,
        classification=classification,
        categorical=[n for n in own if kinds[n] == "category" or n in categorical],
        dates=[n for n in own if kinds[n] == "date"],
        missing_marks=[],  # a DataFrame marks missing values itself
    )
    cells = [(name, values) for name, values, _ in columns]
    summary = run_import(_core.import_table, options, cells)
    _say(summary, guessed, out, quiet)
    return summary


def _classes(
    frame: Any,
    target: str,
    features: Sequence[str] | None,
    out: PathLike | None,
    fractions: Sequence[float] | None,
    seed: int | None,
    standardise: bool,
    missing: str | None,
    quiet: bool,
) -> ImportSummary:
    labels = frame[target]
    if labels.dtype.kind == "f" and not (labels.dropna() == labels.dropna().round()).all():
        raise ValueError(
            f"task: expected the column that tells the tasks apart; without one {target!r} has to "
            f"hold classes, but it holds numbers"
        )
    names = [str(n) for n in frame.columns if str(n) != target] if features is None else features
    parts = []
    for name in names:
        column = frame[name]
        if column.dtype == object and len(column) and hasattr(column.iloc[0], "__len__"):
            if isinstance(column.iloc[0], str):
                raise TypeError(f"column {name!r}: text; expected numbers or vectors (features=)")
            try:
                parts.append(np.stack([np.asarray(cell) for cell in column]))
            except ValueError as error:
                raise ValueError(f"column {name!r}: vectors of different lengths") from error
            continue
        cells, kind = _cells(column, name)
        if kind != "number":
            raise TypeError(f"column {name!r}: {kind}; expected numbers or vectors (features=)")
        parts.append(np.asarray(cells).reshape(-1, 1))
    if not parts:
        raise ValueError("features: expected at least one column")
    if len(parts) > 1 and any(part.ndim > 2 for part in parts):
        raise ValueError("features: expected a single column of images")
    x = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    kept = labels.notna().to_numpy()
    if x.dtype.kind == "f":
        kept = kept & np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    if not kept.all() and missing != "drop":
        row = int(np.flatnonzero(~kept)[0])
        raise ValueError(f'row {row}: a missing value; expected none, or missing="drop"')
    if not quiet and features is None:
        print(f"kshot.data: features {', '.join(names)}", file=sys.stderr)
    y = labels[kept].astype(str) if labels.dtype.kind not in "iub" else labels[kept]
    return from_arrays(
        x[kept],
        y.to_numpy(),
        out,
        fractions=fractions,
        seed=seed,
        standardise=standardise,
        layout="hwc" if x.ndim == 4 else None,
        quiet=quiet,
    )


def from_dataset(
    dataset: Any,
    *,
    target: str,
    task: str | None = None,
    features: str | Sequence[str] | None = None,
    out: PathLike | None = None,
    quiet: bool = False,
    **options: Any,
) -> ImportSummary:
    """Makes a data file of tasks or classes from a Hugging Face dataset.

    dataset: a `datasets.Dataset` or a `datasets.DatasetDict`.
    target, task, features, out, quiet and the other options are those of `from_frame`. Features may
    be a column of vectors, or of images that all have one size. The classes of a ClassLabel column
    keep their names. The splits of a DatasetDict are joined and divided anew, because the splits of
    few-shot learning divide classes or tasks, not rows.
    """
    datasets = sys.modules.get("datasets")
    kinds = () if datasets is None else (datasets.Dataset, datasets.DatasetDict)
    if not isinstance(dataset, kinds) or datasets is None:
        raise TypeError(
            "dataset: expected a datasets.Dataset or datasets.DatasetDict, got "
            + type(dataset).__name__
        )
    if isinstance(dataset, datasets.DatasetDict):
        if not quiet:
            pooled = ", ".join(dataset)
            print(f"kshot.data: the splits {pooled} are pooled and divided anew", file=sys.stderr)
        dataset = datasets.concatenate_datasets(list(dataset.values()))
    import pandas as pd

    chosen = [features] if isinstance(features, str) else features
    names = dataset.column_names if chosen is None else [*chosen, target]
    if chosen is not None and task is not None:
        names.append(task)
    unknown = [
        name
        for name in [*names, target, *([task] if task else [])]
        if name not in dataset.column_names
    ]
    if unknown:
        raise ValueError(
            f"dataset: no column {unknown[0]!r}; there are {', '.join(dataset.column_names)}"
        )
    columns: dict[str, Any] = {}
    for name in names:
        feature = dataset.features[name]
        values = dataset[name][:] if not isinstance(dataset[name], list) else dataset[name]
        if isinstance(feature, datasets.ClassLabel):
            columns[name] = [None if v is None or v < 0 else feature.int2str(v) for v in values]
        elif isinstance(feature, datasets.Image):
            columns[name] = _pictures(values, name)
        else:
            columns[name] = values
    frame = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
    return from_frame(
        frame, target=target, task=task, features=chosen, out=out, quiet=quiet, **options
    )


def _pictures(values: Sequence[Any], name: str) -> list[Array]:
    """Returns images as byte arrays [height, width, channels] with the same number of channels.

    Raises ValueError for images of different sizes.
    """
    modes = {picture.mode for picture in values}
    mode = "L" if modes <= {"1", "L"} else "RGB"
    sizes = {picture.size for picture in values}
    if len(sizes) > 1:
        raise ValueError(f"column {name!r}: images of different sizes; expected one size")
    pictures = [np.asarray(picture.convert(mode), np.uint8) for picture in values]
    return [p.reshape(*p.shape[:2], -1) for p in pictures]
