"""Checks a witness of wgan_lip without wgan_lip and without torch: python check_witness.py WITNESS

A witness holds a critic's weights and architecture, or two sample sets with a plan and dual variables; and hints. This
file proves the claim anew from these, by integers and fractions, prints one line, and exits with 0 if it is proved.
Hints are not believed: a wrong one may lose a proof, and never makes one. It needs Python 3.10 and nothing else.

Norms. Weights are dyadic rationals. For a kernel K, any c and any kernel R, with K K* the kernel sum_(u-v=o) K_u K_v^T,
    E = c I - K K* - R R*  gives  ||K||^2 <= c + ||E||,  ||E|| <= max_i sum_j sum_o |E_ij[o]| q_j / q_i  for any q > 0,
for R R* >= 0, and E is self-adjoint. A matrix is a kernel of one tap; a stride makes the residues of a tap's place
channels of their own. c, R and q are hints. It holds for images of every size: what padding with zeros or a torus
leaves of the plane has no larger norm.

Intervals. The cost of a plan, with half of what its marginals are off moved along the diameter, is at least W1. The
mean at x of u_i = min_j(|x_i - y_j| - v_j) and the mean at y of v add up to W1 at most, whatever v is; likewise with x
and y exchanged. Floating point only chooses the j for which u_i is then computed by integers: see `lowest`.
"""

import base64
import hashlib
import json
import struct
import sys
from fractions import Fraction
from itertools import compress, islice, product
from math import isqrt, prod, sqrt
from operator import mul


def need(condition, message):
    if not condition:
        raise ValueError(message)


def isqrt_up(whole):
    return isqrt(whole - 1) + 1 if whole else 0


def root_up(square):
    """No less than the root of a fraction, by 2^-100 of it at most."""
    shift = max(0, 100 - (square.numerator.bit_length() - square.denominator.bit_length()) // 2)
    return Fraction(isqrt_up(-((-square.numerator << 2 * shift) // square.denominator)), 1 << shift)


def integers(values):
    """Integers and e with value = integer / 2^e, exactly."""
    pairs = [value.as_integer_ratio() for value in values]
    exponent = max(below.bit_length() - 1 for _, below in pairs)
    return [above << (exponent - below.bit_length() + 1) for above, below in pairs], exponent


class Slots:
    """Signed numbers side by side in one integer: a product with it is one with each of them."""

    def __init__(self, largest):
        self.size = largest.bit_length() // 8 + 1  # bytes of a slot
        self.half = 1 << (8 * self.size - 1)

    def halves(self, count):
        return ((1 << 8 * self.size * count) - 1) // ((1 << 8 * self.size) - 1) * self.half

    def pack(self, values):
        raw = b"".join([(value + self.half).to_bytes(self.size, "little") for value in values])
        return int.from_bytes(raw, "little") - self.halves(len(values))

    def unpack(self, number, count):
        raw = (number + self.halves(count)).to_bytes(count * self.size, "little")
        return [int.from_bytes(raw[k : k + self.size], "little") - self.half for k in range(0, len(raw), self.size)]


def square_bound(taps, exponent, hint):
    """No less than ||K||^2, for taps {shift: rows of integers over 2^exponent}; see the top of this file."""
    rows, c, factor = len(next(iter(taps.values()))), Fraction(hint["c"]), {}
    scale = max(exponent, 80 - (c.numerator.bit_length() - c.denominator.bit_length()) // 2)
    c, q = int(c * (1 << 2 * scale)), hint.get("q", [1] * rows)
    need(len(q) == rows and all(type(each) is int and each > 0 for each in q), "q is not positive")
    for shift, coded in hint["factor"]:
        whole = [int(Fraction(r) * (1 << scale)) for r in struct.unpack(f"<{rows * rows}d", base64.b64decode(coded))]
        factor[tuple(shift)] = [whole[k : k + rows] for k in range(0, rows * rows, rows)]
    taps = {o: [[value << (scale - exponent) for value in row] for row in matrix] for o, matrix in taps.items()}
    entries = [value for kernel in (taps, factor) for matrix in kernel.values() for row in matrix for value in row]
    slots = Slots(max(map(abs, entries)) ** 2 * len(entries) * (len(taps) + len(factor)) + abs(c))
    error = {tuple(0 for _ in next(iter(taps))): [c << (8 * slots.size * i) for i in range(rows)]}  # E, packed by rows
    for kernel in (taps, factor):
        columns = {v: [slots.pack(column) for column in zip(*matrix)] for v, matrix in kernel.items()}
        for (u, matrix), (v, packed) in product(kernel.items(), columns.items()):
            sums = error.setdefault(tuple(p - q for p, q in zip(u, v, strict=True)), [0] * rows)
            for i, row in enumerate(matrix):
                sums[i] -= sum(map(mul, row, packed))
    sizes = [[map(abs, slots.unpack(sums[i], rows)) for sums in error.values()] for i in range(rows)]
    totals = [Fraction(sum(sum(map(mul, each, q)) for each in sizes[i]), q[i]) for i in range(rows)]
    return (c + max(totals)) / (1 << 2 * scale)


FORMATS = {"float64": "d", "float32": "f", "float16": "e", "int64": "q"}


class Array:
    def __init__(self, coded):
        self.dtype, self.shape, self.raw = coded["dtype"], tuple(coded["shape"]), base64.b64decode(coded["data"])
        need(all(type(n) is int and n > 0 for n in self.shape), f"an array has the shape {self.shape}")
        self.values, size = struct.unpack(f"<{prod(self.shape)}{FORMATS[self.dtype]}", self.raw), prod(self.shape[1:])
        need(all(value - value == 0 for value in self.values), "an array holds values that are not finite")
        self.rows = [self.values[k : k + size] for k in range(0, len(self.values), size)]


def plain(value):
    """A setting as Python has it, from the form in which the architecture is hashed."""
    if isinstance(value, list):
        return tuple(plain(part) for part in value)
    if not isinstance(value, dict):
        return value
    ((name, content),) = value.items()
    if name == "number":
        number = Fraction(content)
        return number.numerator if number.denominator == 1 else number
    fields = {key: plain(part) for key, part in content}
    return fields["blocks"] if name == "Norm" else fields


SLOPES = {"relu": (0, 1), "leaky_relu": (Fraction(0.1), 1), "hardtanh": (0, 1), "tanh": (0, 1), "softplus": (0, 1)}
ANY = "any but 0"


class Layer:
    """A layer of the architecture: its class, settings and parts, and the weights below its name.

    What proves a kind gives its squared constant, the norms before and after, and a sample's axes before and after. A
    norm is the sizes of its blocks, the largest of whose Euclidean norms it is; () is Euclidean of any size, and None
    what comes in. Vectors have 1 axis, images 3; critic["size"] is that of the first, as far as it is known.
    """

    def __init__(self, described, prefix, critic):
        self.kind, settings, self.parts = described
        self.settings = {name: plain(value) for name, value in settings.items()}
        self.prefix, self.critic = prefix, critic

    def part(self, name):
        return Layer(dict(self.parts)[name], f"{self.prefix}{name}.", self.critic)

    def chain(self):
        inner = [self.part(name).chain() for name, _ in self.parts] if self.kind == "Sequential" else [[self]]
        return sum(inner, [])

    def along(self, size, after=None):
        """Takes samples of this size along their first axis, such as channels, and gives others."""
        known, self.critic["size"] = self.critic["size"], after or size
        need(known in (None, size), f"{self.prefix} takes {size} channels, and gets {known}")

    def weight(self, name, *shape):
        """The weight of that name and shape, in which None is any size."""
        array = self.critic["arrays"].get(self.prefix + name)
        need(array is not None, f"there is no weight {self.prefix}{name}")
        fits = len(array.shape) == len(shape) and all(size in (None, n) for size, n in zip(shape, array.shape))
        need(fits and FORMATS[array.dtype] in "dfe", f"{self.prefix}{name} is {array.dtype} {array.shape}")
        self.critic["used"].add(self.prefix + name)
        return array

    def matrix(self, *shape):
        """The weight, with a bias that fits it if there is one."""
        array = self.weight("weight", *shape)
        if f"{self.prefix}bias" in self.critic["arrays"]:
            self.weight("bias", array.shape[0])
        return array

    def scalar(self, name):
        return Fraction(self.weight(name).values[0])

    def hint(self, suffix):
        return self.critic["hints"].get(f"{self.prefix}weight{suffix}", {"c": 0, "factor": []})

    def square(self, rows, suffix=""):
        """No less than the squared norm of a matrix; the hint for it has the weight's name and this suffix."""
        rows = list(zip(*rows)) if len(rows) > len(rows[0]) else rows
        whole, exponent = integers([value for row in rows for value in row])
        taps = {(): [whole[k : k + len(rows[0])] for k in range(0, len(whole), len(rows[0]))]}
        return square_bound(taps, exponent, self.hint(suffix))

    def slopes(self, width=None):
        if self.kind == "Pointwise":
            return SLOPES[self.settings["name"]]
        need(self.kind in ("Absolute", "Spline"), f"there is no witness for activations {self.kind} yet")
        values = (-1, 1) if self.kind == "Absolute" else self.weight("slope", width, None).values
        return Fraction(min(values)), Fraction(max(values))

    def euler(self, square, tau, width):
        """Of x - tau A^T s(A x + b), ||A||^2 <= square: the spectrum of I - tau A^T D A, D between the slopes of s."""
        low, high = sorted(tau * slope for slope in self.part("activation").slopes(width))
        return max(Fraction(1), high * square - 1, 1 - low * square) ** 2

    def linear(self):
        """A x + b: the largest, over blocks of the output, sum of ||A_ij|| over those of the input."""
        names = ("norm_in", "norm_out") if "norm_in" in self.settings else ("in_features", "out_features")
        before, after = (norm if type(norm) is tuple else (norm,) for norm in map(self.settings.get, names))
        need(min(before + after) > 0, "a norm has blocks of no size")
        matrix, totals = self.matrix(sum(after), sum(before)).rows, [Fraction(0)] * len(after)
        for (i, rows), (j, columns) in product(enumerate(after), enumerate(before)):
            end, stop = sum(after[: i + 1]), sum(before[: j + 1])
            block = [row[stop - columns : stop] for row in matrix[end - rows : end]]
            totals[i] += root_up(self.square(block, f"[{i},{j}]")) if any(map(any, block)) else 0
        return max(totals) ** 2, before, after, 1, 1

    def flow(self):
        weight = self.matrix(None, None)
        (rows, dim), square, tau = weight.shape, 1, 2  # of rows over the roots of the row sums of |W W^T|
        if self.kind == "GradientFlow":
            square, tau = self.square(weight.rows), self.scalar("tau")
        return self.euler(square, tau, rows), (dim,), (dim,), 1, 1

    def convolution(self):
        names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        sizes, strides, padding, dilation, groups, mode = map(self.settings["convolution"].get, names)
        need(min(*sizes, *strides, *dilation, groups, *(p + 1 for p in padding)) >= 1, "a convolution of such sizes")
        kernel = self.matrix(None, None, *sizes)
        need(kernel.shape[0] % groups == 0 and mode in ("zeros", "circular"), f"{groups} groups, padding {mode}")
        if mode == "circular" and any(padding):  # round the torus windows meet at any distance; none may come twice
            need(all(2 * p <= d * (k - 1) for p, d, k in zip(padding, dilation, sizes)), "circular padding that wide")
            strides = (1, 1)
        places, channels, taps = list(product(*map(range, sizes))), kernel.shape[1], {}
        for k, place in enumerate(places):
            shift, residue = zip(*(divmod(t * d, s) for t, d, s in zip(place, dilation, strides, strict=True)))
            taps.setdefault(shift, {})[residue] = k
        seen = list(product(range(channels), sorted({residue for found in taps.values() for residue in found})))
        index = {o: [c * len(places) + found[r] if r in found else -1 for c, r in seen] for o, found in taps.items()}
        (whole, exponent), rows, square = integers(kernel.values), kernel.shape[0] // groups, Fraction(0)
        filters = [[*whole[k : k + len(kernel.rows[0])], 0] for k in range(0, len(whole), len(kernel.rows[0]))]
        for group in range(groups):
            own = filters[group * rows : (group + 1) * rows]
            folded = {shift: [[of[k] for k in order] for of in own] for shift, order in index.items()}
            if len(folded) == 1 and rows > len(seen):  # a matrix, of which the smaller side will do
                folded = {shift: list(zip(*matrix)) for shift, matrix in folded.items()}
            square = max(square, square_bound(folded, exponent, self.hint(f"[{group}]")))
        self.along(channels * groups, channels * groups if self.kind == "ConvGradientFlow" else kernel.shape[0])
        if self.kind == "ConvGradientFlow":
            square = self.euler(square, self.scalar("tau"), kernel.shape[0])
        return square, (), (), 3, 3

    def spectral(self):
        """W x / max(|W^T u|, 1e-6 max |W|) + b."""
        weight = self.matrix(None, None)
        (rows, columns), (whole, exponent) = weight.shape, integers(weight.values)
        u, of_u = integers(self.weight("u", rows).values)
        estimate = sum(sum(map(mul, u, whole[k::columns])) ** 2 for k in range(columns))
        least = max(Fraction(estimate, 1 << 2 * of_u), (Fraction(1e-6) * max(map(abs, whole))) ** 2)
        square = self.square(weight.rows) * (1 << 2 * exponent) / least if least else 0
        return square, (columns,), (rows,), 1, 1

    def principal(self):
        """The largest z + c (1 - z)^2 on the spectrum of A^T A, convex in z; c the largest column sum of the shares."""
        weight = self.weight("weight", None, None)
        (axes, dim), square = weight.shape, self.square(weight.rows)
        shares, _ = self.weight("shares", None, dim), self.weight("mean", dim)
        need(min(shares.values) >= 0 and self.scalar("softening") >= 0, "shares or a softening below 0")
        shared = max(sum(map(Fraction, column)) for column in zip(*shares.rows))
        return max(shared, square + shared * (1 - square) ** 2), (dim,), (axes + shares.shape[0],), 1, 1

    def cones(self):
        """Minima and maxima, soft or not, of 1-Lipschitz functions."""
        count, dim = self.weight("centers", None, None).shape
        heads = self.weight("offsets", None, count).shape[0]
        need(self.kind != "Cones" or (self.scalar("unit") > 0 and self.weight("coldness")), "a unit of cones below 0")
        return 1, (dim,), (1,) * heads, 1, 1

    def sorting(self):
        """Sorting, and reflecting what lies on one side of a plane through 0, are nonexpansive."""
        norm, angles = self.settings["norm"], self.weight("angle", None) if self.kind == "Householder" else None
        width, group = (2 * angles.shape[0], 2) if angles else (self.settings["dim"], self.settings.get("group"))
        group = 2 * self.settings["stride"] if group is None else group
        need(min(width, group) > 0 and width % group == 0, "groups do not divide the width")
        self.along(width)
        need(norm in ((width,), ()) or (norm == (1,) * width and not angles), f"{self.prefix} sorts in the norm {norm}")
        return 1, norm, norm, (1 if norm else ANY), None

    def coordinates(self):
        """Functions of each coordinate: the steepest slope."""
        if self.kind != "Normalize":
            return max(map(abs, self.slopes())) ** 2, None, None, (ANY if self.kind == "Spline" else None), None
        scales = self.weight("std", None)
        least, _ = Fraction(min(scales.values)), self.weight("mean", *scales.shape)
        need(least > 0, "a std is not above 0")
        return 1 / least**2, None, None, ANY, None

    def images(self):  # moved, or pooled over windows that share no pixel
        need("stride" not in self.settings, "windows may overlap")
        size, square = self.critic["size"], self.settings.get("factor", 1) ** 2
        if size is not None:
            need(self.kind != "PixelShuffle" or size % square == 0, f"{size} channels for {square} pixels each")
            self.critic["size"] = size // square if self.kind == "PixelShuffle" else size * square
        return 1, (), (), 3, 3

    def labels(self):
        (c, h, w), count, weight = map(self.settings.get, ("image_shape", "label_count", "weight"))
        self.critic["size"] = c + count
        return max(1, weight**2 * h * w), (c * h * w + count,), ((c + count) * h * w,), 1, 3

    def reshaped(self):
        if self.kind == "Flatten":
            dim, size = self.settings["dim"], self.critic["size"]
            need(size is None or dim % size == 0, f"{dim} numbers of {size} channels")
            return 1, (dim,), (dim,), ANY, 1
        shape = self.settings["shape"]
        self.critic["size"] = shape[0]
        return 1, (prod(shape),), (prod(shape),), 1, len(shape)

    def branches(self):
        """Maps side by side: of parts of a vector, or of one vector to numbers that are then taken together."""
        inner = self.part("layers")
        found = [compose(inner.part(name).chain(), self.critic, 1) for name, _ in inner.parts]
        squares, befores, afters, axes = zip(*found)
        need(all(befores) and all(afters) and max(axes) < 2, "maps side by side that are not of vectors of known size")
        if self.kind == "Parallel":
            need(self.settings["widths"] == tuple(map(sum, befores)), "parts of other widths")
            return max(squares), sum(befores, ()), sum(afters, ()), 1, 1
        need(len({*befores}) == len({*afters}) == max(afters[0]) == 1, "maps side by side of other norms")
        if self.kind in ("Maximum", "Minimum"):
            return max(squares), befores[0], afters[0], 1, 1
        weights = self.settings["weights"] if self.kind == "WeightedSum" else self.weight("weight", 1, None).values
        total = sum(abs(Fraction(w)) * root_up(square) for w, square in zip(weights, squares, strict=True))
        return total**2, befores[0], afters[0], 1, 1


KINDS = {
    **dict.fromkeys(("Linear", "ClippedLinear"), Layer.linear), "SpectralNormLinear": Layer.spectral,
    **dict.fromkeys(("GradientFlow", "RescaledGradientFlow"), Layer.flow), "PrincipalEnergies": Layer.principal,
    **dict.fromkeys(("Conv2d", "ConvGradientFlow"), Layer.convolution), "LabelPlanes": Layer.labels,
    **dict.fromkeys(("Pointwise", "Absolute", "Spline", "Normalize"), Layer.coordinates),
    **dict.fromkeys(("Parallel", "Maximum", "Minimum", "WeightedSum", "Mixture"), Layer.branches),
    **dict.fromkeys(("MaxMin", "GroupSort", "Householder"), Layer.sorting),
    **dict.fromkeys(("Cones", "LipschitzExtension"), Layer.cones),
    **dict.fromkeys(("PixelShuffle", "PixelUnshuffle", "MaxPool2d", "L2Pool2d", "ScaledAvgPool2d"), Layer.images),
    # W over the root of the largest row sum of |W W^T| has a norm of at most 1, and (3 z - z^3)/2 maps [0, 1] into it.
    "BjorckLinear": lambda of: (1, *[of.matrix(None, None).shape[k : k + 1] for k in (1, 0)], 1, 1),
    "Flatten": Layer.reshaped, "Unflatten": Layer.reshaped, "Hardtanh": lambda _: (1, None, None, None, None),
    "Identity": lambda of: (1, *[of.settings["norm"]] * 2, 1, 1), "Squeeze": lambda _: (1, (1,), (1,), 1, 0),
}  # fmt: skip


def norm_name(norm):
    if not norm or len(norm) < 2:
        return f"Euclidean({norm[0]})" if norm else "any" if norm is None else "Euclidean"
    return f"max({len(norm)})" if max(norm) == 1 else f"block-max({'+'.join(map(str, norm))})"


def compose(layers, critic, axes=None):
    """Of layers one behind the other: the squared constant, the norms before and after, and the axes after."""
    square, first, state, critic["size"] = Fraction(1), None, None, None
    for layer in layers:
        need(layer.kind in KINDS, f"there is no witness for layers {layer.kind} yet")
        each, before, after, taken, given = KINDS[layer.kind](layer)
        at = f"{layer.prefix}{layer.kind}"
        need(None in (axes, taken) or axes == taken or (taken == ANY and axes > 0), f"{at} gets {axes} axes")
        anonymous = before is not None and state is not None and () in (before, state) and len(before + state) < 2
        need(None in (before, state) or before == state or anonymous, f"{at} gets the norm {norm_name(state)}")
        square, first = square * each, before if first is None else first
        state = next((norm for norm in (after, before) if norm is not None), state)
        axes = given if given is not None else taken if axes is None and taken != ANY else axes
        if axes == 1 and state:
            critic["size"] = sum(state)
    return square, first, state, axes


def bound_critic(witness):
    """The squared constant that is proved, and what it is about."""
    certificate, architecture = witness["certificate"], witness["architecture"]
    arrays = {name: Array(coded) for name, coded in witness["weights"].items()}
    stated = {name: value for name, value in certificate.items() if name != "sha256"}
    lines = [f"{name} torch.{a.dtype} {a.shape}\n".encode() + a.raw for name, a in sorted(arrays.items())]
    texts = [json.dumps(content, sort_keys=True).encode() for content in (stated, architecture)]
    for name, text in zip(("sha256", "architecture_sha256", "weights_sha256"), (*texts, b"".join(lines))):
        need(hashlib.sha256(text).hexdigest() == certificate[name], f"the certificate has another {name}")

    critic = {"arrays": arrays, "used": set(), "hints": witness["hints"]}
    paths = [layer["path"] for layer in certificate["layers"]]
    paths = [path for path in paths if not any(path.startswith(f"{join}.") for join in paths)]  # less those in branches
    alone = len(paths) == 1 and not any(name.startswith(f"{paths[0]}.") for name in arrays)
    named = [("" if alone else f"{path}.", described) for path, described in zip(paths, architecture, strict=True)]
    square, first, state, _ = compose([Layer(described, prefix, critic) for prefix, described in named], critic)
    left, norms = sorted(arrays.keys() - critic["used"]), [norm_name(first), norm_name(state)]
    need(not left, f"the weights {', '.join(left[:3])} belong to no layer")
    need(norms == [certificate["norm_in"], certificate["norm_out"]], f"it maps from {norms[0]} to {norms[1]}")
    hashes = [f"{name} {certificate[key]}" for name, key in (("weights", "weights_sha256"), ("architecture", "architecture_sha256"), ("certificate", "sha256"))]
    return square, f"from {norms[0]} to {norms[1]}, {', '.join(hashes)}"


def number(value):
    need(type(value) in (int, float), f"{value!r} is no number")
    return value


def check_critic(witness):
    (square, about), claim = bound_critic(witness), number(witness["lipschitz"])
    need(claim >= 0 and square <= Fraction(claim) ** 2, f"all that follows is Lip(f) <= {float(root_up(square))!r}")
    return f"Lip(f) <= {claim!r} {about}"


def cut(queries, places):
    """Numbers of places, cut in the middle of the longest side of the box around them."""
    side = max(zip(*(places[i] for i in queries)), key=lambda side: max(side) - min(side))
    order = [i for _, i in sorted(zip(side, queries))]
    return order[: len(order) // 2], order[len(order) // 2 :]


def lowest(samples, points, v):
    """min_j(|z - p_j| - v_j), rounded down, of each z of the samples: integers of integers.

    Where axes are few, boxes of samples are cut up, and at a box of radius r around c only those cones are kept with
    |c - p_j| - v_j <= 2 r + the least of them: a distance changes by at most r within the box, so no other is lowest.
    This is in float64, scaled to [-1, 1]. With u = 2^-53, a scaled number is off by u, and an operation adds u of its
    result: so a distance, a radius, and a distance less v are off by (d + 16) sqrt(d) u at most, and the two sides of
    the comparison by 8 times that. The margin, d^2 2^-40 = 8192 d^2 u, is larger.
    """
    d, found, origin = len(points[0]), [0] * len(samples), points[0]
    if d > 8:
        slots = Slots(4 * d * max(abs(t) for point in samples + points for t in point) ** 2)
        packed, squares = [slots.pack(column) for column in zip(*points)], [sum(map(mul, p, p)) for p in points]
        for i, z in enumerate(samples):
            own, dots = sum(map(mul, z, z)), slots.unpack(sum(map(mul, z, packed)), len(points))
            found[i] = min(isqrt(own + square - 2 * dot) - of for square, dot, of in zip(squares, dots, v))
        return found
    top = max(1, *map(abs, v), *(abs(t - o) for point in samples + points for t, o in zip(point, origin)))
    places = [[(t - o) / top for t, o in zip(z, origin)] for z in samples]
    scaled = [[(t - o) / top for t in column] for column, o in zip(zip(*points), origin)]

    def search(queries, cones, offsets, *columns):
        spans = [(min(side), max(side)) for side in zip(*(places[i] for i in queries))]
        squares, radius = [0.0] * len(cones), sqrt(sum((high - low) * (high - low) for low, high in spans)) / 2
        for middle, column in zip([(low + high) / 2 for low, high in spans], columns):
            squares = [s + (t - middle) * (t - middle) for s, t in zip(squares, column)]
        values = [sqrt(s) - of for s, of in zip(squares, offsets)]
        most = min(values) + 2 * radius + d * d / 2**40
        kept = [value <= most for value in values]
        cones, *columns = (list(compress(each, kept)) for each in (cones, offsets, *columns))
        if len(queries) == 1:
            z = samples[queries[0]]
            exact = (isqrt(sum((s - t) ** 2 for s, t in zip(z, points[j]))) - v[j] for j in cones)
            found[queries[0]] = min(exact)
            return
        for quarter in (quarter for half in cut(queries, places) for quarter in cut(half, places) if quarter):
            search(quarter, cones, *columns)

    search(range(len(samples)), range(len(points)), [of / top for of in v], *scaled)
    return found


def check_interval(witness):
    names, apexes = ("x", "y", "a", "b", "offsets", "mass", "rows", "columns"), witness["apexes"]
    x, y, a, b, offsets, mass, rows, columns = arrays = [Array(witness[name]) for name in names]
    (n, d), (m, _), (edges,), (k, _) = x.shape, y.shape, mass.shape, {"x": x, "y": y}[apexes].shape
    shapes = [(n, d), (m, d), (n,), (m,), (k,), *[(edges,)] * 3]
    need([array.shape for array in arrays] == shapes, "the shapes of its arrays do not fit")
    need(min(a.values + b.values + mass.values + rows.values + columns.values) >= 0, "it holds a mass below 0")
    hashes = ", ".join([f"{name} {hashlib.sha256(array.raw).hexdigest()}" for name, array in zip("xyab", arrays)])

    whole, exponent = integers(x.values + y.values + offsets.values)
    spare = max(0, 80 - max(map(abs, whole)).bit_length())  # roots to 2^-80 of the largest number
    numbers, exponent = iter([value << spare for value in whole]), exponent + spare
    x, y = ([list(islice(numbers, d)) for _ in range(size)] for size in (n, m))
    v, (a, b, mass) = list(numbers), (integers(array.values)[0] for array in (a, b, mass))
    duals = (v, lowest(y, x, v)) if apexes == "x" else (lowest(x, y, v), v)
    lower = sum(Fraction(sum(map(mul, side, dual)), sum(side) << exponent) for side, dual in zip((a, b), duals))
    paid = (isqrt_up(sum((s - t) ** 2 for s, t in zip(x[i], y[j]))) for i, j in zip(rows.values, columns.values))
    upper = Fraction(sum(map(mul, mass, paid)), sum(mass) << exponent)
    for samples, weights, index in ((x, a, rows.values), (y, b, columns.values)):
        found = [0] * len(weights)
        for i, each in zip(index, mass):
            found[i] += each
        off = sum(abs(have * sum(weights) - want * sum(mass)) for have, want in zip(found, weights))
        box = isqrt_up(sum((max(column) - min(column)) ** 2 for column in zip(*samples)))
        upper += Fraction(box * off, 2 * sum(mass) * sum(weights) << exponent)
    need(number(witness["lower"]) <= max(lower, 0), f"all that follows is W1 >= {float(lower)!r}")
    need(number(witness["upper"]) >= upper, f"all that follows is W1 <= {float(upper)!r}")
    return f"{witness['lower']!r} <= W1 <= {witness['upper']!r} of {n} and {m} points of R^{d}, sha256 {hashes}"


def once(pairs):
    need(len(dict(pairs)) == len(pairs), "a name stands there twice")
    return dict(pairs)


def main(path):
    try:
        with open(path, encoding="utf-8") as file:
            witness = json.load(file, object_pairs_hook=once)
        print("PROVED:", (check_critic if "certificate" in witness else check_interval)(witness))
        return 0
    except Exception as error:  # whatever it is, nothing is proved
        print(f"NOT PROVED: {error!r}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
