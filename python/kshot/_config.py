"""Configurations: the keys of docs/configuration.md, from a file, a dict or TOML text."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from . import _core

#: Changes to a configuration: `{"train.steps": 300}`, nested tables, or "train.steps=300".
Overrides = Mapping[str, Any] | Iterable[str] | None
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's, except that TOML has no raw DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _literal(key: str, value: Any) -> str:
    """A value in TOML. Raises TypeError that names the key."""
    if (
        hasattr(value, "item")
        and not isinstance(value, (list, tuple))
        and not hasattr(value, "__len__")
    ):
        value = value.item()  # a NumPy scalar
    to_list = getattr(value, "tolist", None)
    if to_list is not None:
        value = to_list()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, os.PathLike)):
        return _quoted(os.fspath(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_literal(key, v) for v in value) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(str(k))} = {_literal(f'{key}.{k}', v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    raise TypeError(
        f"{key}: expected a number, a string, a list or a table, got {type(value).__name__}"
    )


def _key(part: str) -> str:
    return part if _BARE_KEY.fullmatch(part) else _quoted(part)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if not isinstance(key, str):
            raise TypeError(f"configuration: expected strings for keys, got {key!r}")
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, path + ".")
        elif value is not None:  # None: as if the key were absent
            yield path, value


def _dotted(path: str) -> str:
    return ".".join(_key(part) for part in path.split("."))


def override_list(overrides: Overrides) -> list[str]:
    """Overrides as the library takes them: "table.key=value" in TOML syntax."""
    if overrides is None:
        return []
    if isinstance(overrides, Mapping):
        return [f"{path}={_literal(path, value)}" for path, value in _leaves(overrides)]
    if isinstance(overrides, str):
        raise TypeError('overrides: expected a dict or a list such as ["train.steps=300"]')
    items = list(overrides)
    for item in items:
        if not isinstance(item, str):
            raise TypeError(f'overrides: expected strings such as "train.steps=300", got {item!r}')
    return items


def toml_text(table: Mapping[str, Any]) -> str:
    """Nested tables, or dotted keys, as TOML."""
    return "".join(f"{_dotted(p)} = {_literal(p, v)}\n" for p, v in _leaves(table))


def set_table(values: Mapping[str, Any]) -> str:
    """The table [set] of a sweep. A table with "low" and "high" is a range, and stays one."""
    if not isinstance(values, Mapping):
        raise TypeError(f"vary: expected a dict, got {type(values).__name__}")

    def leaves(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in table.items():
            path = f"{prefix}{key}"
            if isinstance(value, Mapping) and not {"low", "high"} & set(value):
                yield from leaves(value, path + ".")
            else:
                yield f"{_dotted(path)} = {_literal(path, value)}\n"

    return "[set]\n" + "".join(leaves(values, ""))


@contextmanager
def without_lines() -> Iterator[None]:
    """Messages without the numbers of lines: a dict has none."""
    try:
        yield
    except _core.ConfigError as error:
        message = re.sub(r"^configuration:\d+: ", "configuration: ", str(error))
        raise _core.ConfigError(message) from None


class Config:
    """A checked configuration of a run.

    `source` is the path of a TOML file, a dict (nested, or with dotted keys such as
    `{"train.steps": 300}`), or another Config. `overrides` are applied on top.

    Raises ConfigError, with one line that names the key and what was expected.
    """

    __slots__ = ("_native",)

    def __init__(self, source: ConfigLike, overrides: Overrides = None) -> None:
        changes = override_list(overrides)
        if isinstance(source, Config):
            with without_lines():
                self._native = _core.Config.parse(source.to_toml(), "configuration", changes)
        elif isinstance(source, Mapping):
            text = toml_text(source)
            with without_lines():
                self._native = _core.Config.parse(text, "configuration", changes)
        elif isinstance(source, (str, os.PathLike)):
            self._native = _core.Config.load(os.fspath(source), changes)
        else:
            raise TypeError(
                "config: expected a path, a dict or a kshot.Config, got " + type(source).__name__
            )

    @classmethod
    def parse(cls, text: str, overrides: Overrides = None) -> Config:
        """Reads TOML text, and applies overrides to it: `{"train.steps": 300}`."""
        return cls._of(_core.Config.parse(text, "configuration", override_list(overrides)))

    @classmethod
    def template(cls, algorithm: str) -> Config:
        """A configuration of an algorithm that runs as it is.

        algorithm: "maml", "meta_sgd", "abml" or "leo", whose tasks are sinusoids here.
        """
        return cls.parse(_core.config_template(algorithm))

    @classmethod
    def _of(cls, native: _core.Config) -> Config:
        config = cls.__new__(cls)
        config._native = native
        return config

    def to_toml(self) -> str:
        """Every key that applies, with its value."""
        return str(self._native.to_toml())

    def to_dict(self) -> dict[str, Any]:
        """The same as nested dicts."""
        # Not above: `import kshot` is to be quick.
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib

        return tomllib.loads(self.to_toml())

    def __getitem__(self, key: str) -> Any:
        """The value of a dotted key: `config["train.steps"]`."""
        value: Any = self.to_dict()
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise KeyError(key)
            value = value[part]
        return value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return bool(self._native == other._native)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<kshot.Config algorithm={self['algorithm']!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Config.parse, (self.to_toml(),)


ConfigLike = str | os.PathLike[str] | Mapping[str, Any] | Config
