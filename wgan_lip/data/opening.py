"""Where samples come from: files, folders of images, named sets and oracles, opened as rows or as laws."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgan_lip.data.folders import list_images, read_pixels
from wgan_lip.data.images import ImageSource, image_rows
from wgan_lip.data.laws import Law, box_diameter, law_of_oracle, law_of_rows, law_of_source
from wgan_lip.data.oracles import ORACLES, Oracle
from wgan_lip.data.readers import ENDINGS, VectorFile, ending_of, holds_parquet, map_rows, read_file, reading
from wgan_lip.data.sources import FiniteSource, Source, as_samples, required
from wgan_lip.data.tables import TableOptions
from wgan_lip.utils.checks import InputError, as_tensor, available_memory, check_memory, check_samples, match_columns
from wgan_lip.utils.discovery import concrete_subclasses, import_all
from wgan_lip.utils.printing import Printed, Row

__all__ = ["Opened", "check_shapes", "known_w1", "matched", "named_sources", "open_samples"]

FOR_TRAINING = {"test_size", "seed", "flip", "shift", "label_scale"}  # parameters that do not change the samples


def named_sources() -> dict[str, type[Source]]:
    """The sources that can be opened by name: every class, including your own, that has one and needs no argument.

    If two classes have the same name, the package's wins, and then the one defined last.
    """
    import_all("wgan_lip.data")
    found = concrete_subclasses(Source)  # type: ignore[type-abstract]
    kinds = [kind for kind in found if hasattr(kind, "name") and not required(kind)]
    kinds.sort(key=lambda kind: kind.__module__.startswith("wgan_lip."))  # the last one of a name stays
    return dict(sorted({kind.name: kind for kind in kinds}.items()))


@dataclass(frozen=True, eq=False, repr=False)
class Opened(Printed):
    """Samples that :func:`open_samples` found.

    Attributes:
        name: What screens call them.
        law: The law they are drawn from; for a finite set the uniform law on its rows.
        rows: All samples, shape (n, d), float32 or float64, if they are a finite set that fits into memory.
        names: The names of the d columns in the file, if it has any.
        notes: What was left out when they were read, in sentences.
        image_shape: (c, h, w) with c·h·w = d if samples are images.
        labels: The group of each row: the class in a set with classes, or the value of the column that was named.
        oracle: The oracle whose side `side` this is: 0 for P, 1 for Q.
    """

    name: str
    law: Law
    rows: Tensor | None = None
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    labels: tuple[Any, ...] | None = None
    oracle: Oracle | None = None
    side: int = 0

    def headline(self) -> str:
        return f"Samples of {self.name} in dimension {self.law.dim:,}"

    def summary_rows(self) -> list[Row]:
        rows = [Row("Samples", f"{len(self.rows):,} in memory")] if self.rows is not None else []
        if self.names is not None:
            beyond = f", and {len(self.names) - 12:,} more" if len(self.names) > 12 else ""
            rows.append(Row("Columns", ", ".join(self.names[:12]) + beyond))
        if self.image_shape is not None:
            rows.append(Row("Images", " × ".join(map(str, self.image_shape)), "channels, height, width"))
        return [*rows, *(Row("Note", note) for note in self.notes), *self.law.summary_rows()]


def open_samples(
    spec: str | Path,
    *,
    key: str | None = None,
    options: TableOptions | None = None,
    side: int = 0,
    dim: int | None = None,
    memory_limit: int | None = None,
    openers: Mapping[str, Callable[[str], Opened]] | None = None,
) -> Opened:
    """Opens samples by a specification that needs no quotes in a shell or in Hydra's grammar.

    ================================  ==================================================================
    `points.npy`                      a file, or a folder of Parquet files, that :func:`read_file` reads
    `faces/`                          a folder of images, with its subfolders
    `data/digits`                     a set or a law of :func:`named_sources`: all its images, or its law
    `data/digits:0-4`                 some of its classes; `+` joins several, as in `data/mnist:0-2+7`
    `data/moons:radius:2:noise:0.1`   parameters, as name and value in turn, after the classes
    `oracle/shift`                    a side of an oracle of :data:`ORACLES`
    `oracle/funnel:funnels:16:dim:8`  parameters of an oracle
    ================================  ==================================================================

    A named set or oracle takes precedence over a path of the same name; `./data/digits` is always a path.

    Arguments:
        spec: The specification; a `Path` always means a file or folder.
        key: Which array of an `.npz` or `.pt` file; needed if it holds several.
        options: Options of a table or an array; see :class:`TableOptions`.
        side: Which side of an oracle: 0 for P, 1 for Q.
        dim: The dimension that samples must have; for an oracle, the dimension to use instead of its default.
        memory_limit: Bytes that samples may take in memory. A larger `.npy` file or folder of images becomes a law that
            draws rows uniformly, with replacement, and reads them when they are drawn; other larger files are refused.
            Half of the available memory by default.
        openers: Further kinds of samples: the word before the first colon → a function that opens the rest.

    Returns:
        The samples, with at least two rows.

    Raises:
        InputError: No such file, set or oracle (the closest is named), an unknown class or parameter, fewer than two
            samples, a dimension other than `dim`, images of several sizes, or whatever :func:`read_file` refuses.

    Guarantee:
        Nothing in a file is run. Rows are those of the file, in its order, bit for bit if it holds float32 or float64;
        the bytes of images are divided by 255. In a file that stays on disk, rows are checked for NaN and infinity only
        when they are drawn.

    Example:
        >>> open_samples("data/digits:0-4").rows.shape
        torch.Size([901, 64])
        >>> x, y = (open_samples("oracle/shift:length:3", side=side, dim=16) for side in (0, 1))
        >>> known_w1(x, y)
        (3.0, 0.0)
    """
    if not isinstance(spec, (str, Path)):
        raise InputError(f"Samples must be given as a file, a folder or a name, not as {spec!r}.")
    opened = _open_named(spec, side, dim, openers or {}) if isinstance(spec, str) else None
    options = options or TableOptions()
    if opened is not None and key is not None:
        raise InputError(f"{spec} is not a file with arrays to choose from. Leave key={key!r} out.")
    by_class = opened is not None and opened.labels is not None and options.given == ["by"]
    if by_class and options.by != "class":
        raise InputError(f"The samples of {spec} can be grouped only by=class, not by={options.by}.")
    if opened is not None and options.given and not by_class:
        raise InputError(f"{spec} is not a table, and does not take {options.given[0]}. Leave it out.")
    if opened is None:
        limit = _half_of_memory() if memory_limit is None else memory_limit
        opened = _open_path(spec, key, options, limit, list(openers or {}))
    if dim not in (None, opened.law.dim):
        raise InputError(f"{spec} has dimension {opened.law.dim}, not dim={dim}. Change or leave out dim.")
    return opened


def check_shapes(x: Opened, y: Opened) -> None:
    """Refuses images of different shapes, even with equally many numbers. Raises :class:`InputError`."""
    if None not in (x.image_shape, y.image_shape) and x.image_shape != y.image_shape:
        raise InputError(
            f"Both sides must have images of one shape (c, h, w), but {x.name} has {x.image_shape} and {y.name} has "
            f"{y.image_shape}. Resize or convert one side."
        )


def known_w1(x: Opened, y: Opened) -> tuple[float, float] | None:
    """W1 of the laws and its standard error (0 up to rounding) if both are sides of one oracle, else None."""
    if x.oracle is None or x.oracle != y.oracle:
        return None
    return (x.oracle.w1, x.oracle.w1_error) if x.side != y.side else (0.0, 0.0)


def matched(x: Opened, y: Opened) -> tuple[Opened, Opened]:
    """Both sides, with the columns of y put in the order of x by name, if both have names.

    If only one side has names, a note says that the other's columns are assumed to be in the same order.

    Raises:
        InputError: Names that are on one side only.
    """
    order = match_columns(x.names, y.names)
    if order is None or y.rows is None:
        if (x.names is None) != (y.names is None) and x.law.dim > 1:
            named, other = (x, y) if y.names is None else (y, x)
            note = f"{other.name} has no column names: its columns are assumed to be in the order of {named.name}."
            y = replace(y, notes=(*y.notes, note))
        return x, y
    rows, note = y.rows[:, order], f"The columns of {y.name} were put in the order of {x.name}, by their names."
    law = law_of_rows(rows, y.name, units=y.law.units)
    return x, replace(y, law=law, rows=rows, names=x.names, notes=(*y.notes, note))


def _open_named(spec: str, side: int, dim: int | None, openers: Mapping[str, Callable[[str], Opened]]) -> Opened | None:
    """Opens a specification that is not a path; None if it is one."""
    kind, _, rest = spec.partition(":")
    room, _, name = kind.partition("/")
    if rest and kind in openers:
        return openers[kind](rest)
    if room == "data" and name in named_sources():
        return _open_source(name, rest)
    if room == "oracle" and name in ORACLES:
        return _open_oracle(name, rest, side, dim)
    return None


def _open_path(spec: str | Path, key: str | None, options: TableOptions, limit: int, prefixes: list[str]) -> Opened:
    path = Path(spec)
    with reading(path, "file of samples"):
        path = path.expanduser()
        exists, is_folder = path.exists(), path.is_dir()
        size = path.stat().st_size if exists else 0
        of_tables = is_folder and holds_parquet(path)
    if not spec or not (exists or ending_of(path) in ENDINGS):
        raise InputError(_unknown(str(spec), prefixes))
    if is_folder and not of_tables:
        if options.given:
            raise InputError(f"{path} is a folder of images, and does not take {options.given[0]}. Leave it out.")
        return _open_folder(path, key, limit)
    return _open_file(path, key, options, limit, size)


def _open_file(path: Path, key: str | None, options: TableOptions, limit: int, size: int) -> Opened:
    if path.suffix.lower() == ".npy" and 8 * size > limit and {*options.given} <= {"layout"}:  # a byte becomes float64
        mapped = map_rows(path, key)
        if mapped.size * (4 if mapped.dtype.kind == "f" and mapped.dtype.itemsize <= 4 else 8) > limit:
            if options.layout is not None or mapped.ndim in (3, 4):
                return _open_images(path, mapped, options.layout)
            return Opened(path.name, law_of_rows(mapped, str(path), units=VectorFile.units))
    read = read_file(path, key, options, memory_limit=limit)
    rows = check_samples(as_samples(read.values), str(path), minimum=2)
    law = law_of_rows(rows, str(path), **_known(rows.shape[1], pixels=read.values.dtype == torch.uint8))
    return Opened(path.name, law, rows, read.names, read.notes, read.image_shape, read.labels)


def _open_images(path: Path, images: np.ndarray, layout: str | None) -> Opened:
    """Images in an array on disk, read when they are drawn."""
    rows, shape = image_rows(images[:2], str(path), layout)
    check_samples(rows, str(path), minimum=2)

    def draw(n: int, rng: torch.Generator) -> Tensor:
        drawn = images[torch.randint(len(images), (n,), generator=rng).numpy()]
        return as_samples(as_tensor(image_rows(drawn, str(path), layout)[0], str(path)))

    known = _known(rows.shape[1], pixels=images.dtype == np.uint8)
    return Opened(path.name, Law(rows.shape[1], draw, **known, size=len(images), name=str(path)), image_shape=shape)


def _known(dim: int, *, pixels: bool) -> dict[str, Any]:
    """Units of samples from files, and for pixels their diameter."""
    return (
        {"units": ImageSource.units, "diameter": box_diameter(0.0, 1.0, dim)} if pixels else {"units": VectorFile.units}
    )


def _open_folder(folder: Path, key: str | None, limit: int) -> Opened:
    if key is not None:
        raise InputError(f"{folder} is a folder of images, and does not take key={key!r}. Leave it out.")
    paths = list_images(folder)
    if len(paths) < 2:
        raise InputError(f"{folder} must hold at least 2 images, and holds only {paths[0].name}. Add more.")
    c, h, w = read_pixels(paths[0]).shape
    shape = c, h, w
    dim = math.prod(shape)

    def read(index: Iterable[int], n: int) -> Tensor:
        rows = torch.empty(n, dim)
        for row, i in zip(rows, index):
            pixels = as_samples(read_pixels(paths[i]))
            if pixels.shape != shape:
                raise InputError(
                    f"The images of {folder} must have one shape (c, h, w), but {paths[0].name} has {shape} and "
                    f"{paths[i].relative_to(folder)} has {tuple(pixels.shape)}. Resize or convert them."
                )
            row.copy_(pixels.flatten())
        return rows

    known = _known(dim, pixels=True)
    if 4 * dim * len(paths) <= limit:
        rows = read(range(len(paths)), len(paths))
        return Opened(folder.resolve().name, law_of_rows(rows, str(folder), **known), rows, image_shape=shape)

    def draw(n: int, rng: torch.Generator) -> Tensor:
        return read(torch.randint(len(paths), (n,), generator=rng).tolist(), n)

    return Opened(folder.resolve().name, Law(dim, draw, **known, size=len(paths), name=str(folder)), image_shape=shape)


def _open_source(name: str, options: str) -> Opened:
    classes, words = _parsed(f"data/{name}", options)
    kind = named_sources()[name]
    given = _parameters(kind, f"data/{name}", words, hidden=FOR_TRAINING)
    source = kind(**given, **kind.whole)
    title = ":".join(filter(None, [name, options]))
    if not isinstance(source, FiniteSource):
        if classes is not None:
            raise InputError(f"data/{name} has no classes. Leave {classes!r} out.")
        return Opened(title, law_of_source(source), image_shape=source.image_shape)
    need = 8 * source.dim * (source.size + len(source.test))
    check_memory(need, f"all samples of data/{name}", "Save some of them as .npy.")
    rows, labels = torch.cat([source.train, source.test]), None
    if source.train_labels is not None and source.test_labels is not None:
        labels = torch.cat([source.train_labels, source.test_labels])
    if classes is not None:
        if labels is None:
            raise InputError(f"data/{name} has no classes. Leave {classes!r} out.")
        chosen = _in_classes(labels, classes, f"data/{name}")
        rows, labels = rows[chosen], labels[chosen]
    law = law_of_rows(rows, title, units=source.units, diameter=law_of_source(source).diameter)
    told = None if labels is None else tuple(labels.tolist())
    return Opened(title, law, rows, image_shape=source.image_shape, labels=told)


def _open_oracle(name: str, options: str, side: int, dim: int | None) -> Opened:
    classes, words = _parsed(f"oracle/{name}", options)
    if classes is not None:
        raise InputError(f"oracle/{name} has no classes. Leave {classes!r} out.")
    given = _parameters(ORACLES[name], f"oracle/{name}", words)
    oracle = ORACLES[name](**({} if dim is None else {"dim": dim}) | given)
    law, title = law_of_oracle(oracle, side), ":".join(filter(None, [name, options]))
    return Opened(f"{title}, {'PQ'[side]}", law, oracle=oracle, side=side)


def _parsed(name: str, options: str) -> tuple[str | None, dict[str, str]]:
    """`0-4:root:images` → the classes `0-4` and the parameters {root: images}."""
    words = options.split(":") if options else []
    classes = words.pop(0) if words and words[0][:1].isdigit() else None
    if len(words) % 2:
        raise InputError(f"{name}:{options} has a parameter without a value. Write {name}:PARAMETER:VALUE, in pairs.")
    return classes, dict(zip(words[::2], words[1::2]))


def _parameters(
    kind: type[Source] | type[Oracle], name: str, words: Mapping[str, str], hidden: Collection[str] = ()
) -> dict[str, Any]:
    """A constructor's arguments, converted from text by its annotations."""
    parameters = {key: p.annotation for key, p in inspect.signature(kind).parameters.items() if key not in hidden}
    legal = {key: kind if isinstance(kind, str) else inspect.formatannotation(kind) for key, kind in parameters.items()}
    given: dict[str, Any] = {}
    for key, word in words.items():
        if key not in legal:
            raise InputError(f"{name} has no parameter {key!r}. Its parameters: {', '.join(legal) or '(none)'}.")
        try:
            given[key] = _CONVERSIONS[legal[key]](word)
        except (KeyError, ValueError):
            raise InputError(f"{key} of {name} must be of type {legal[key]}, not {word!r}.") from None
    return given


_CONVERSIONS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "int | None": int,
    "float": float,
    "str": str,
    "str | None": str,
    "bool": lambda word: {"true": True, "false": False}[word.lower()],
}


def _in_classes(labels: Tensor, classes: str, name: str) -> Tensor:
    """Which rows belong to classes such as `0-2+7`, shape (n,)."""
    known = [str(label) for label in labels.unique().tolist()]
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for part in classes.split("+"):
        first, _, last = part.partition("-")
        last = last or first
        if first not in known or last not in known or int(first) > int(last):
            raise InputError(
                f"{name} has no classes {part!r}. Its classes are {', '.join(known)}; choose as in {known[0]}, "
                f"{known[0]}-{known[-1]} or {known[0]}+{known[-1]}."
            )
        chosen |= (labels >= int(first)) & (labels <= int(last))
    return chosen


def _unknown(spec: str, prefixes: list[str]) -> str:
    """The message for an unknown specification, with what it may have meant."""
    kind = spec.partition(":")[0]
    room = kind.partition("/")[0]
    rooms: dict[str, list[str]] = {"data": list(named_sources()), "oracle": list(ORACLES)}
    if room in rooms and "/" in kind:
        forms = f"{room}/NAME, with NAME one of {', '.join(rooms[room])}"
    else:
        others = "".join(f", {prefix}:…" for prefix in prefixes)
        forms = f"a file ({' '.join(ENDINGS)}), a folder of images, data/NAME, oracle/NAME{others}"
    whole = {form: f"{room}/{name}" for room in rooms for name in rooms[room] for form in (name, f"{room}/{name}")}
    close = get_close_matches(kind, whole, n=1)
    hint = f"Did you mean {whole[close[0]]}?" if close else f"Check the path, relative to {Path.cwd()}."
    return f"There are no samples {spec!r}. {hint} Samples are given as {forms}."


def _half_of_memory() -> int:
    """Half of the bytes available without swapping, or of 4 GiB if the system does not say."""
    available = available_memory()
    return 2**31 if available is None else available // 2
