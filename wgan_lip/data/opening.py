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

FOR_TRAINING = {"test_size", "seed", "flip", "shift", "label_scale"}  # parameters that leave all its samples the same


def named_sources() -> dict[str, type[Source]]:
    """The sources that can be opened by name: every class that has one and needs no argument, also one of your own.

    Where two classes have one name, the package's goes first, and then the one that was defined last.
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
        law: What they are drawn from; for a finite set the uniform law on its rows.
        rows: All samples, shape (n, d), float32 or float64, where they are a finite set that fits into memory.
        names: What their file calls the d columns, where it does.
        notes: What was left out when they were read, in sentences.
        image_shape: (c, h, w) with c·h·w = d where samples are images.
        labels: The group of each row: the class in a set that has classes, else where a column was named.
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
    `faces/`                          a folder of images, with those in folders below it
    `data/digits`                     a set or a law of :func:`named_sources`: all its images, or its law
    `data/digits:0-4`                 some of its classes; `+` joins several, as in `data/mnist:0-2+7`
    `data/moons:radius:2:noise:0.1`   parameters, as name and value in turn, after the classes
    `oracle/shift`                    a side of an oracle of :data:`ORACLES`
    `oracle/funnel:funnels:16:dim:8`  parameters of an oracle
    ================================  ==================================================================

    A named set or oracle goes before a path of the same name; `./data/digits` is always a path.

    Arguments:
        spec: The specification; a `Path` always means a file or folder.
        key: Which array of an `.npz` or `.pt` file; needed where it holds several.
        options: What is known of a table or an array; see :class:`TableOptions`.
        side: Which side of an oracle: 0 for P, 1 for Q.
        dim: The dimension that samples must have; that of an oracle, which otherwise has its default.
        memory_limit: Bytes that samples may take in memory. A larger `.npy` file or folder of images becomes a law that
            draws rows uniformly, with replacement, and reads them when they are drawn; another larger file is refused.
            Half of the memory available by default.
        openers: Further kinds of samples: what stands before the first colon → what opens the rest.

    Returns:
        The samples, with at least two rows.

    Raises:
        InputError: No such file, set or oracle (the closest is named), an unknown class or parameter, fewer than two
            samples, another dimension than `dim`, images of several sizes, or whatever :func:`read_file` refuses.

    Guarantee:
        Nothing in a file is run. Rows are those of the file, in its order, bit for bit where it holds float32 or
        float64; the bytes of images are divided by 255. Of a file that stays on the disk only the rows that are drawn
        are checked for NaN and infinity, when they are drawn.

    Example:
        >>> open_samples("data/digits:0-4").rows.shape
        torch.Size([901, 64])
        >>> x, y = (open_samples("oracle/shift:length:3", side=side, dim=16) for side in (0, 1))
        >>> known_w1(x, y)
        (3.0, 0.0)
    """
    if not isinstance(spec, (str, Path)):
        raise InputError(f"Expected samples by a file, a folder or a name. Got {spec!r}.")
    opened = _open_named(spec, side, dim, openers or {}) if isinstance(spec, str) else None
    options = options or TableOptions()
    if opened is not None and key is not None:
        raise InputError(f"Expected no key for {spec}, which is no file. Got key={key!r}. Leave it out.")
    by_class = opened is not None and opened.labels is not None and options.given == ["by"]
    if by_class and options.by != "class":
        raise InputError(f"The samples of {spec} are grouped by their class alone, by=class. Got by={options.by}.")
    if opened is not None and options.given and not by_class:
        raise InputError(f"Expected no {options.given[0]} for {spec}, which is no table. Leave it out.")
    if opened is None:
        limit = _half_of_memory() if memory_limit is None else memory_limit
        opened = _open_path(spec, key, options, limit, list(openers or {}))
    if dim not in (None, opened.law.dim):
        raise InputError(f"Expected {spec} to have dimension {dim}. Got {opened.law.dim}. Change or leave out dim.")
    return opened


def check_shapes(x: Opened, y: Opened) -> None:
    """Refuses images of two shapes, which may hold equally many numbers. Raises :class:`InputError`."""
    if None not in (x.image_shape, y.image_shape) and x.image_shape != y.image_shape:
        raise InputError(
            f"Expected images of one shape (c, h, w) on both sides. Got {x.image_shape} in {x.name} and "
            f"{y.image_shape} in {y.name}. Resize or convert one side."
        )


def known_w1(x: Opened, y: Opened) -> tuple[float, float] | None:
    """W1 of the laws and its standard error, 0 up to rounding, where both are sides of one oracle; else None."""
    if x.oracle is None or x.oracle != y.oracle:
        return None
    return (x.oracle.w1, x.oracle.w1_error) if x.side != y.side else (0.0, 0.0)


def matched(x: Opened, y: Opened) -> tuple[Opened, Opened]:
    """The two with the columns of y in the order of x, by their names, where both have names.

    Where one side alone has names, a note says that its order was taken for that of the other.

    Raises:
        InputError: Names that are on one side only.
    """
    order = match_columns(x.names, y.names)
    if order is None or y.rows is None:
        if (x.names is None) != (y.names is None) and x.law.dim > 1:
            named, other = (x, y) if y.names is None else (y, x)
            note = f"{other.name} does not name its columns: they were taken to be in the order of {named.name}."
            y = replace(y, notes=(*y.notes, note))
        return x, y
    rows, note = y.rows[:, order], f"The columns of {y.name} were put in the order of {x.name}, by their names."
    law = law_of_rows(rows, y.name, units=y.law.units)
    return x, replace(y, law=law, rows=rows, names=x.names, notes=(*y.notes, note))


def _open_named(spec: str, side: int, dim: int | None, openers: Mapping[str, Callable[[str], Opened]]) -> Opened | None:
    """What a specification means that is no path, else None."""
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
            raise InputError(f"Expected no {options.given[0]} for {path}, a folder of images. Leave it out.")
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
    """Images in an array on the disk: those that are drawn are read."""
    rows, shape = image_rows(images[:2], str(path), layout)
    check_samples(rows, str(path), minimum=2)

    def draw(n: int, rng: torch.Generator) -> Tensor:
        drawn = images[torch.randint(len(images), (n,), generator=rng).numpy()]
        return as_samples(as_tensor(image_rows(drawn, str(path), layout)[0], str(path)))

    known = _known(rows.shape[1], pixels=images.dtype == np.uint8)
    return Opened(path.name, Law(rows.shape[1], draw, **known, size=len(images), name=str(path)), image_shape=shape)


def _known(dim: int, *, pixels: bool) -> dict[str, Any]:
    """Units, and where they are pixels the diameter, of samples from files."""
    return (
        {"units": ImageSource.units, "diameter": box_diameter(0.0, 1.0, dim)} if pixels else {"units": VectorFile.units}
    )


def _open_folder(folder: Path, key: str | None, limit: int) -> Opened:
    if key is not None:
        raise InputError(f"Expected no key for {folder}, a folder. Got key={key!r}. Leave it out.")
    paths = list_images(folder)
    if len(paths) < 2:
        raise InputError(f"Expected {folder} to hold at least 2 images. Got {paths[0].name} alone. Add more.")
    c, h, w = read_pixels(paths[0]).shape
    shape = c, h, w
    dim = math.prod(shape)

    def read(index: Iterable[int], n: int) -> Tensor:
        rows = torch.empty(n, dim)
        for row, i in zip(rows, index):
            pixels = as_samples(read_pixels(paths[i]))
            if pixels.shape != shape:
                raise InputError(
                    f"Expected the images of {folder} to have one shape (c, h, w), {shape} as in {paths[0].name}. "
                    f"Got {tuple(pixels.shape)} in {paths[i].relative_to(folder)}. Resize or convert them."
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
            raise InputError(f"Expected no classes for data/{name}, which has none. Got {classes!r}. Leave them out.")
        return Opened(title, law_of_source(source), image_shape=source.image_shape)
    need = 8 * source.dim * (source.size + len(source.test))
    check_memory(need, f"all samples of data/{name}", "Save some of them as .npy.")
    rows, labels = torch.cat([source.train, source.test]), None
    if source.train_labels is not None and source.test_labels is not None:
        labels = torch.cat([source.train_labels, source.test_labels])
    if classes is not None:
        if labels is None:
            raise InputError(f"Expected no classes for data/{name}, which has none. Got {classes!r}. Leave them out.")
        chosen = _in_classes(labels, classes, f"data/{name}")
        rows, labels = rows[chosen], labels[chosen]
    law = law_of_rows(rows, title, units=source.units, diameter=law_of_source(source).diameter)
    told = None if labels is None else tuple(labels.tolist())
    return Opened(title, law, rows, image_shape=source.image_shape, labels=told)


def _open_oracle(name: str, options: str, side: int, dim: int | None) -> Opened:
    classes, words = _parsed(f"oracle/{name}", options)
    if classes is not None:
        raise InputError(f"Expected no classes for oracle/{name}. Got {classes!r}. Leave them out.")
    given = _parameters(ORACLES[name], f"oracle/{name}", words)
    oracle = ORACLES[name](**({} if dim is None else {"dim": dim}) | given)
    law, title = law_of_oracle(oracle, side), ":".join(filter(None, [name, options]))
    return Opened(f"{title}, {'PQ'[side]}", law, oracle=oracle, side=side)


def _parsed(name: str, options: str) -> tuple[str | None, dict[str, str]]:
    """`0-4:root:images` → the classes `0-4` and the parameters {root: images}."""
    words = options.split(":") if options else []
    classes = words.pop(0) if words and words[0][:1].isdigit() else None
    if len(words) % 2:
        raise InputError(f"Expected {name}:PARAMETER:VALUE, in pairs. Got {name}:{options}. Complete the pair.")
    return classes, dict(zip(words[::2], words[1::2]))


def _parameters(
    kind: type[Source] | type[Oracle], name: str, words: Mapping[str, str], hidden: Collection[str] = ()
) -> dict[str, Any]:
    """Arguments of a constructor from text, by its annotations."""
    parameters = {key: p.annotation for key, p in inspect.signature(kind).parameters.items() if key not in hidden}
    legal = {key: kind if isinstance(kind, str) else inspect.formatannotation(kind) for key, kind in parameters.items()}
    given: dict[str, Any] = {}
    for key, word in words.items():
        if key not in legal:
            raise InputError(f"Expected a parameter of {name}: {', '.join(legal) or '(none)'}. Got {key!r}.")
        try:
            given[key] = _CONVERSIONS[legal[key]](word)
        except (KeyError, ValueError):
            raise InputError(f"Expected {key} of {name} to be of type {legal[key]}. Got {word!r}.") from None
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
                f"Expected classes of {name} as in {known[0]}, {known[0]}-{known[-1]} or {known[0]}+{known[-1]}, "
                f"among {', '.join(known)}. Got {part!r}."
            )
        chosen |= (labels >= int(first)) & (labels <= int(last))
    return chosen


def _unknown(spec: str, prefixes: list[str]) -> str:
    """Says what could have been meant."""
    kind = spec.partition(":")[0]
    room = kind.partition("/")[0]
    rooms: dict[str, list[str]] = {"data": list(named_sources()), "oracle": list(ORACLES)}
    if room in rooms and "/" in kind:
        forms = f"{room}/NAME with a name among {', '.join(rooms[room])}"
    else:
        others = "".join(f", {prefix}:…" for prefix in prefixes)
        forms = f"a file ({' '.join(ENDINGS)}), a folder of images, data/NAME, oracle/NAME{others}"
    whole = {form: f"{room}/{name}" for room in rooms for name in rooms[room] for form in (name, f"{room}/{name}")}
    close = get_close_matches(kind, whole, n=1)
    hint = f"Did you mean {whole[close[0]]}?" if close else f"Check the path, seen from {Path.cwd()}."
    return f"Expected {forms}. Got {spec!r}. {hint}"


def _half_of_memory() -> int:
    """Half of the bytes that can be had without swapping; of 4 GiB where the system does not say."""
    available = available_memory()
    return 2**31 if available is None else available // 2
