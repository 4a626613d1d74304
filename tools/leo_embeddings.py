#!/usr/bin/env python3
"""Converts the embeddings published with LEO (Rusu et al. 2019) for `kshot import arrays`.

  tools/leo_embeddings.py embeddings/miniImageNet/center -o mini
  kshot import arrays mini.npz --classes mini.tsv -o data/miniimagenet-center.kshot

The folder holds train_embeddings.pkl, val_embeddings.pkl and test_embeddings.pkl. Each file is a
pickled dict with "embeddings" [examples, 640] and "keys", strings NUMBER-CLASS-CLASS_NUMBER. The
script writes OUT.npz (x: float32; y: int64, the class of each example) and OUT.tsv (index, class,
split). It unpickles only arrays, strings and containers, and refuses a file that asks for more.
"""

import argparse
import io
import os
import pathlib
import pickle
import sys
import tempfile

import numpy as np

SPLITS = ("train", "val", "test")
# The classes that a pickle of NumPy arrays of numbers and strings needs, under their old and new
# names.
ALLOWED = {("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode"),
           ("collections", "OrderedDict"),
           *((f"numpy.{core}.multiarray", name) for core in ("core", "_core")
             for name in ("_reconstruct", "scalar"))}


class Refused(Exception):
    """A file that is refused. The message is one line for the user."""


class ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise Refused(f"asks for {module}.{name}; expected arrays and strings alone")
        if module.startswith("numpy.") and module.split(".")[1] in ("core", "_core"):
            core = "_core" if hasattr(np, "_core") else "core"
            module = f"numpy.{core}.multiarray"
        return super().find_class(module, name)


def load(path):
    """Returns (embeddings [n, d] float32, class names [n]) of one pickle. Raises Refused."""
    try:
        data = ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}") from error
    except Refused:
        raise
    except Exception as error:  # a pickle can fail in any way
        raise Refused(f"not a pickle of arrays ({type(error).__name__})") from error
    if not isinstance(data, dict) or not {"embeddings", "keys"} <= set(data):
        raise Refused('expected a dict with "embeddings" and "keys"')
    x = np.asarray(data["embeddings"])
    if x.ndim != 2 or x.dtype.kind != "f" or x.size == 0 or not np.isfinite(x).all():
        raise Refused(f'"embeddings": expected finite numbers [examples, features], got '
                      f"{x.dtype} {list(x.shape)}")
    keys = [key.decode() if isinstance(key, bytes) else str(key) for key in data["keys"]]
    if len(keys) != len(x):
        raise Refused(f'{len(keys)} "keys" for {len(x)} embeddings')
    names = []
    for row, key in enumerate(keys):
        parts = key.split("-")
        if len(parts) != 3 or parts[2].split("_")[0] != parts[1]:
            raise Refused(f'key {row} is "{key}", expected NUMBER-CLASS-CLASS_NUMBER')
        names.append(parts[1])
    return x.astype(np.float32), names


def write(path, body):
    """Writes a file by calling `body`. The file appears only when it is complete."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            body(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def convert(folder, out):
    """Writes OUT.npz and OUT.tsv. Returns the number of examples, and of classes per split."""
    xs, ys, classes = [], [], {}
    for split in SPLITS:
        path = folder / f"{split}_embeddings.pkl"
        try:
            x, names = load(path)
            if xs and x.shape[1] != xs[0].shape[1]:
                raise Refused(f"{x.shape[1]} features, expected {xs[0].shape[1]} as the other splits")
            for name in dict.fromkeys(names):
                if name in classes:
                    raise Refused(f"class {name} is in {classes[name][1]} too")
                classes[name] = (len(classes), split)
        except Refused as error:
            raise Refused(f"{path}: {error}") from error
        xs.append(x)
        ys.append(np.array([classes[name][0] for name in names], dtype=np.int64))
    lines = ["index\tclass\tsplit"]
    lines += [f"{index}\t{name}\t{split}" for name, (index, split) in classes.items()]
    write(out.with_name(out.name + ".npz"),
          lambda file: np.savez(file, x=np.concatenate(xs), y=np.concatenate(ys)))
    write(out.with_name(out.name + ".tsv"),
          lambda file: file.write(("\n".join(lines) + "\n").encode()))
    return sum(map(len, xs)), [sum(s == split for _, s in classes.values()) for split in SPLITS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("-o", "--out", type=pathlib.Path, required=True, help="without ending")
    args = parser.parse_args()
    try:
        examples, classes = convert(args.folder, args.out)
    except (Refused, OSError) as error:
        sys.exit(f"leo_embeddings: {error}")
    print(f"{examples} examples; classes: " +
          ", ".join(f"{n} {split}" for split, n in zip(SPLITS, classes)))


if __name__ == "__main__":
    main()
