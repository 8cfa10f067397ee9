"""Checks a witness of wgan_lip without wgan_lip and without torch: python check_witness.py WITNESS

A witness holds a critic's weights and architecture, or two sample sets with a plan and dual variables; and hints. This
file proves the claim again from these, by integers and fractions, prints one line, and exits with 0 if it is proved.
Hints are not trusted: a wrong one can spoil a proof, but never make one. It needs Python 3.10 and nothing else.

Norms. Weights are dyadic rationals. For a kernel K, any c and any kernel R, with K K* the kernel sum_(u-v=o) K_u K_v^T,
    E = c I - K K* - R R*  gives  ||K||^2 <= c + ||E||,  ||E|| <= max_i sum_j sum_o |E_ij[o]| q_j / q_i  for any q > 0,
for R R* >= 0, and E is self-adjoint. A matrix is a kernel of one tap; with a stride, each residue of a tap's position
is a separate channel. c, R and q are hints. It holds for images of every size: a convolution with zero padding or on a
torus has no larger norm than on the plane. Intervals: a plan costs at least W1, once half the error of its marginals is
moved along the diameter; the means of u and v add up to W1 at most, for any v and u_i = min_j(|x_i - y_j| - v_j).
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

FORMATS = {"float64": "d", "float32": "f", "float16": "e", "int64": "q"}
SLOPES = {"relu": (0, 1), "leaky_relu": (Fraction(0.1), 1), "hardtanh": (0, 1), "tanh": (0, 1), "softplus": (0, 1)}
HASHES = ("weights_sha256", "architecture_sha256", "sha256")
ANY = "any but 0"


def need(condition, message):
    if not condition:
        raise ValueError(message)


def isqrt_up(whole):
    return isqrt(whole - 1) + 1 if whole else 0


def root_up(square):  # no less than the root of a fraction, and above it by 2^-100 of it at most
    shift = max(0, 100 - (square.numerator.bit_length() - square.denominator.bit_length()) // 2)
    return Fraction(isqrt_up(-((-square.numerator << 2 * shift) // square.denominator)), 1 << shift)


def integers(values):  # integers and e with value = integer / 2^e, exactly
    pairs = [value.as_integer_ratio() for value in values]
    exponent = max(below.bit_length() - 1 for _, below in pairs)
    return [above << (exponent - below.bit_length() + 1) for above, below in pairs], exponent


def square_bound(taps, exponent, hint):
    """No less than ||K||^2, for taps {shift: rows of integers over 2^exponent}; see the top of this file."""
    rows, c, factor = len(next(iter(taps.values()))), Fraction(hint.get("c", 0)), {}
    scale = max(exponent, 80 - (c.numerator.bit_length() - c.denominator.bit_length()) // 2)
    c, q = int(c * (1 << 2 * scale)), hint.get("q", [1] * rows)
    need(len(q) == rows and all(type(each) is int and each > 0 for each in q), "q is not positive")
    for shift, coded in hint.get("factor", []):
        whole = [int(Fraction(r) * (1 << scale)) for r in struct.unpack(f"<{rows * rows}d", base64.b64decode(coded))]
        factor[tuple(shift)] = [whole[k : k + rows] for k in range(0, rows * rows, rows)]
    taps = {o: [[value << (scale - exponent) for value in row] for row in matrix] for o, matrix in taps.items()}
    entries = [value for kernel in (taps, factor) for matrix in kernel.values() for row in matrix for value in row]
    largest = max(map(abs, entries)) ** 2 * len(entries) * (len(taps) + len(factor)) + abs(c)
    size = largest.bit_length() // 8 + 1  # bytes; of numbers side by side in one integer, all take part in one product
    half, zero = 1 << (8 * size - 1), tuple(0 for _ in next(iter(taps)))
    halves, error = sum(half << (8 * size * i) for i in range(rows)), {zero: [c << (8 * size * i) for i in range(rows)]}
    for kernel in (taps, factor):
        packed = {v: [sum(n << (8 * size * i) for i, n in enumerate(row)) for row in zip(*kernel[v])] for v in kernel}
        for (u, matrix), (v, columns) in product(kernel.items(), packed.items()):
            sums = error.setdefault(tuple(p - q for p, q in zip(u, v, strict=True)), [0] * rows)  # of E, row by row
            for i, row in enumerate(matrix):
                sums[i] -= sum(map(mul, row, columns))
    totals = []
    for i in range(rows):
        raw = b"".join([(sums[i] + halves).to_bytes(rows * size, "little") for sums in error.values()])
        sizes = [abs(int.from_bytes(raw[k : k + size], "little") - half) for k in range(0, len(raw), size)]
        totals.append(Fraction(sum(map(mul, sizes, q * len(error))), q[i]))
    return (c + max(totals)) / (1 << 2 * scale)


class Array:
    def __init__(self, coded):
        self.dtype, self.shape, self.raw = coded["dtype"], tuple(coded["shape"]), base64.b64decode(coded["data"])
        need(all(type(n) is int and n > 0 for n in self.shape), f"an array has the shape {self.shape}")
        self.values, size = struct.unpack(f"<{prod(self.shape)}{FORMATS[self.dtype]}", self.raw), prod(self.shape[1:])
        need(all(value - value == 0 for value in self.values), "an array holds values that are not finite")
        self.rows = [self.values[k : k + size] for k in range(0, len(self.values), size)]


def plain(value):  # a setting as Python has it, from the form in which the architecture is hashed
    if isinstance(value, list):
        return tuple(plain(part) for part in value)
    if not isinstance(value, dict):
        return value
    ((name, content),) = value.items()
    if name == "number":
        return content if "n" in content else int(content) if content.lstrip("-").isdigit() else Fraction(content)
    fields = {key: plain(part) for key, part in content}
    return fields["blocks"] if name == "Norm" else fields


class Layer:  # of the architecture: its class, settings and parts, and the weights below its name
    def __init__(self, described, prefix, critic):
        (self.kind, settings, parts), self.prefix, self.critic = described, prefix, critic
        self.settings = {name: plain(value) for name, value in settings.items()}
        self.parts = {name: Layer(part, f"{prefix}{name}.", critic) for name, part in parts if part}

    def chain(self):
        return [own for part in self.parts.values() for own in part.chain()] if self.kind == "Sequential" else [self]

    def along(self, size, after=None):  # takes samples of this size along their first axis, and gives others
        known, self.critic["size"] = self.critic["size"], after or size
        need(known in (None, size), f"{self.prefix} takes {size} channels, and gets {known}")

    def weight(self, name, *shape):  # the weight of that name and shape, in which None is any size
        array = self.critic["arrays"].get(self.prefix + name)
        fits = array and len(array.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape))
        need(fits and FORMATS[array.dtype] in "dfe", f"{self.prefix}{name} is missing, or of another type or shape")
        self.critic["used"].add(self.prefix + name)
        return array

    def matrix(self, *shape):  # the weight, with a bias that fits it if there is one
        array = self.weight("weight", *shape)
        if f"{self.prefix}bias" in self.critic["arrays"]:
            self.weight("bias", array.shape[0])
        return array

    def square(self, rows, suffix=""):  # no less than the squared norm of a matrix
        rows = list(zip(*rows)) if len(rows) > len(rows[0]) else rows
        whole, exponent = integers([value for row in rows for value in row])
        rows = [whole[k : k + len(rows[0])] for k in range(0, len(whole), len(rows[0]))]
        return square_bound({(): rows}, exponent, self.critic["hints"].get(f"{self.prefix}weight{suffix}", {}))

    def slopes(self, width=None):
        if self.kind == "Pointwise":
            return SLOPES[self.settings["name"]]
        need(self.kind in ("Absolute", "Spline"), f"there is no witness for activations {self.kind} yet")
        values = (-1, 1) if self.kind == "Absolute" else self.weight("slope", width, None).values
        return Fraction(min(values)), Fraction(max(values))

    def euler(self, square, width):
        """For x - tau A^T s(A x + b), ||A||^2 <= square: the spectrum of I - tau A^T D A, D between the slopes of s."""
        tau = 2 if self.kind == "RescaledGradientFlow" else Fraction(*self.weight("tau").values)
        low, high = sorted(tau * slope for slope in self.parts["activation"].slopes(width))
        return max(Fraction(1), high * square - 1, 1 - low * square) ** 2

    def kernel(self, kernel, strides, dilation, groups):  # no less than that of a convolution: its groups' largest
        places, channels = list(product(*map(range, kernel.shape[2:]))), kernel.shape[1]
        (whole, exponent), size, rows = integers(kernel.values), len(kernel.rows[0]), kernel.shape[0] // groups
        square = Fraction(0)
        for group in range(groups):
            own, taps = [whole[k * size : (k + 1) * size] for k in range(group * rows, (group + 1) * rows)], {}
            for c, (k, place) in product(range(channels), enumerate(places)):
                shift, residue = zip(*(divmod(t * d, s) for t, d, s in zip(place, dilation, strides, strict=True)))
                taps.setdefault(shift, {})[c, residue] = [row[c * len(places) + k] for row in own]
            seen = sorted({column for columns in taps.values() for column in columns})
            taps = {shift: [columns.get(column, [0] * rows) for column in seen] for shift, columns in taps.items()}
            if len(taps) > 1 or rows <= len(seen):  # else a matrix, of which the smaller side will do
                taps = {shift: list(zip(*columns)) for shift, columns in taps.items()}
            hint = self.critic["hints"].get(f"{self.prefix}weight[{group}]", {})
            square = max(square, square_bound(taps, exponent, hint))
        return square


def prove(of):
    """What proves a layer: its squared constant, the norms before and after, and a sample's axes before and after.

    A norm is the sizes of its blocks: the largest Euclidean norm among them; () is Euclidean of any size, None is any.
    Vectors have 1 axis, images 3; size is that of the first, such as channels, if it is known.
    """
    settings, size = of.settings, of.critic["size"]
    match of.kind:
        case "Linear" | "ClippedLinear":  # A x + b: of output blocks, the largest sum of ||A_ij|| over input blocks
            names = ("norm_in", "norm_out") if "norm_in" in settings else ("in_features", "out_features")
            before, after = (norm if type(norm) is tuple else (norm,) for norm in map(settings.get, names))
            need(min(before + after) > 0, "a norm has blocks of no size")
            matrix, totals = of.matrix(sum(after), sum(before)).rows, [Fraction(0)] * len(after)
            for (i, rows), (j, columns) in product(enumerate(after), enumerate(before)):
                end, stop = sum(after[: i + 1]), sum(before[: j + 1])
                block = [row[stop - columns : stop] for row in matrix[end - rows : end]]
                totals[i] += root_up(of.square(block, f"[{i},{j}]")) if any(map(any, block)) else 0
            return max(totals) ** 2, before, after, 1, 1
        case "SpectralNormLinear":  # W x / max(|W^T u|, 1e-6 max |W|) + b
            weight = of.matrix(None, None)
            (rows, columns), (whole, exponent) = weight.shape, integers(weight.values)
            u, of_u = integers(of.weight("u", rows).values)
            estimate = sum(sum(map(mul, u, whole[k::columns])) ** 2 for k in range(columns))
            least = max(Fraction(estimate, 1 << 2 * of_u), (Fraction(1e-6) * max(map(abs, whole))) ** 2)
            square = of.square(weight.rows) * (1 << 2 * exponent) / least if least else 0
            return square, (columns,), (rows,), 1, 1
        case "BjorckLinear":  # W over the root of the largest row sum of |W W^T|; (3 z - z^3)/2 maps [0, 1] into itself
            rows, columns = of.matrix(None, None).shape
            return 1, (columns,), (rows,), 1, 1
        case "GradientFlow" | "RescaledGradientFlow":  # the latter of rows over the roots of the row sums of |W W^T|
            weight = of.matrix(None, None)
            square = of.square(weight.rows) if of.kind == "GradientFlow" else 1
            return of.euler(square, weight.shape[0]), weight.shape[1:], weight.shape[1:], 1, 1
        case "Conv2d" | "ConvGradientFlow":
            names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
            sizes, strides, padding, dilation, groups, mode = map(settings["convolution"].get, names)
            need(min(*sizes, *strides, *dilation, groups, *(p + 1 for p in padding)) > 0, "sizes of a convolution")
            kernel = of.matrix(None, None, *sizes)
            need(kernel.shape[0] % groups == 0 and mode in ("zeros", "circular"), f"{groups} groups, padding {mode}")
            if mode == "circular" and any(padding):  # round the torus windows meet at any distance; none may come twice
                need(all(2 * p <= d * (k - 1) for p, d, k in zip(padding, dilation, sizes)), "padding that wide")
                strides = (1, 1)
            square, channels = of.kernel(kernel, strides, dilation, groups), kernel.shape[1] * groups
            of.along(channels, channels if of.kind == "ConvGradientFlow" else kernel.shape[0])
            return of.euler(square, kernel.shape[0]) if of.kind == "ConvGradientFlow" else square, (), (), 3, 3
        case "PrincipalEnergies":  # the largest z + c (1 - z)^2 on the spectrum of A^T A; c the largest sum of shares
            weight = of.weight("weight", None, None)
            (axes, dim), square = weight.shape, of.square(weight.rows)
            shares, _ = of.weight("shares", None, dim), of.weight("mean", dim)
            need(min(*shares.values, *of.weight("softening").values) >= 0, "shares or a softening below 0")
            shared = max(sum(map(Fraction, column)) for column in zip(*shares.rows))  # what is bounded is convex in z
            return max(shared, square + shared * (1 - square) ** 2), (dim,), (axes + shares.shape[0],), 1, 1
        case "Cones" | "LipschitzExtension":  # minima and maxima, soft or not, of 1-Lipschitz functions
            count, dim = of.weight("centers", None, None).shape
            need(of.kind != "Cones" or (of.weight("coldness") and of.weight("unit").values > (0,)), "a unit below 0")
            return 1, (dim,), (1,) * of.weight("offsets", None, count).shape[0], 1, 1
        case "MaxMin" | "GroupSort" | "Householder":  # sorting, and reflecting one side of a plane, are nonexpansive
            norm, angles = settings["norm"], of.weight("angle", None) if of.kind == "Householder" else None
            width, group = (2 * angles.shape[0], 2) if angles else (settings["dim"], settings.get("group"))
            group = 2 * settings["stride"] if group is None else group
            need(min(width, group) > 0 and width % group == 0, "groups do not divide the width")
            need(norm in ((width,), ()) or (norm == (1,) * width and not angles), f"{of.prefix} sorts in {norm}")
            of.along(width)
            return 1, norm, norm, (1 if norm else ANY), None
        case "Pointwise" | "Absolute" | "Spline" | "Hardtanh":
            low, high = (0, 1) if of.kind == "Hardtanh" else of.slopes()
            return max(abs(low), abs(high)) ** 2, None, None, (ANY if of.kind == "Spline" else None), None
        case "Normalize":
            scales = of.weight("std", None)
            need(of.weight("mean", *scales.shape) and min(scales.values) > 0, "a std is not above 0")
            of.along(size if scales.shape == (1,) else scales.shape[0])
            return 1 / Fraction(min(scales.values)) ** 2, None, None, ANY, None
        case "PixelShuffle" | "PixelUnshuffle" | "MaxPool2d" | "L2Pool2d" | "ScaledAvgPool2d":
            need("stride" not in settings, "windows may overlap")
            square = settings.get("factor", 1) ** 2  # of pools, whose windows share no pixel, 1
            need(of.kind != "PixelShuffle" or (size or 0) % square == 0, f"{size} channels for {square} pixels each")
            of.along(size, size and (size // square if of.kind == "PixelShuffle" else size * square))
            return 1, (), (), 3, 3
        case "Flatten":
            dim = settings["dim"]
            need(dim % (size or 1) == 0, f"{of.prefix} takes {dim} numbers, and gets {size} channels")
            return 1, (dim,), (dim,), ANY, 1
        case "Unflatten" | "LabelPlanes":
            shape, labels, weight = (settings.get(name, 0) for name in ("shape", "label_count", "weight"))
            c, *others = shape or settings["image_shape"]
            of.critic["size"], pixels = c + labels, prod(others)
            return max(1, weight**2 * pixels), (c * pixels + labels,), ((c + labels) * pixels,), 1, 1 + len(others)
        case "Parallel" | "Maximum" | "Minimum" | "WeightedSum" | "Mixture":
            found = [compose(part.chain(), of.critic, 1) for part in of.parts["layers"].parts.values()]
            squares, befores, afters, axes = zip(*found)
            need(all(befores) and all(afters) and max(axes) < 2, "maps side by side that are not of vectors")
            if of.kind == "Parallel":  # each of a part of the vector
                need(settings["widths"] == tuple(map(sum, befores)), "parts of other widths")
                return max(squares), sum(befores, ()), sum(afters, ()), 1, 1
            need(len({*befores}) == len({*afters}) == max(afters[0]) == 1, "maps side by side of other norms")
            square = max(squares)
            if of.kind in ("WeightedSum", "Mixture"):
                weights = of.weight("weight", 1, None).values if of.kind == "Mixture" else settings["weights"]
                square = sum(abs(Fraction(w)) * root_up(each) for w, each in zip(weights, squares, strict=True)) ** 2
            return square, befores[0], afters[0], 1, 1
        case "Identity" | "Squeeze":
            norm = settings["norm"] if of.kind == "Identity" else (1,)
            return 1, norm, norm, 1, int(of.kind == "Identity")
    raise ValueError(f"there is no witness for layers {of.kind} yet")


def norm_name(norm):
    if not norm or len(norm) < 2:
        return f"Euclidean({norm[0]})" if norm else "any" if norm is None else "Euclidean"
    return f"max({len(norm)})" if max(norm) == 1 else f"block-max({'+'.join(map(str, norm))})"


def compose(layers, critic, axes=None):
    """For layers applied in order: the squared constant, the norms before and after, and the axes after."""
    square, first, state, critic["size"] = Fraction(1), None, None, None
    for layer in layers:
        each, before, after, taken, given = prove(layer)
        at, norms = f"{layer.prefix}{layer.kind}", {before, state} - {None}
        need(None in (axes, taken) or axes == taken or (taken == ANY and axes > 0), f"{at} gets {axes} axes")
        need(len(norms) < 2 or (() in norms and len(sum(norms, ())) < 2), f"{at} gets the norm {norm_name(state)}")
        square, first = square * each, before if first is None else first
        state = next((norm for norm in (after, before) if norm is not None), state)
        axes = given if given is not None else taken if axes is None and taken != ANY else axes
        critic["size"] = sum(state) if axes == 1 and state else critic["size"]
    return square, first, state, axes


def bound_critic(witness):
    """The squared constant that is proved, and what it is about: a map between norms, with its hashes."""
    certificate, architecture = witness["certificate"], witness["architecture"]
    arrays = {name: Array(coded) for name, coded in witness["weights"].items()}
    stated = {name: value for name, value in certificate.items() if name != "sha256"}
    lines = [f"{name} torch.{a.dtype} {a.shape}\n".encode() + a.raw for name, a in sorted(arrays.items())]
    texts = [b"".join(lines), *[json.dumps(content, sort_keys=True).encode() for content in (architecture, stated)]]
    for key, text in zip(HASHES, texts):
        need(hashlib.sha256(text).hexdigest() == certificate[key], f"the certificate has another {key}")
    critic = {"arrays": arrays, "used": set(), "hints": witness["hints"]}
    paths = [layer["path"] for layer in certificate["layers"]]
    paths = [path for path in paths if not any(path.startswith(f"{join}.") for join in paths)]  # less those in branches
    alone = len(paths) == 1 and not any(name.startswith(f"{paths[0]}.") for name in arrays)
    layers = [Layer(one, "" if alone else f"{path}.", critic) for one, path in zip(architecture, paths, strict=True)]
    square, first, state, _ = compose(layers, critic)
    left, norms = sorted(arrays.keys() - critic["used"]), [norm_name(first), norm_name(state)]
    need(norms == [certificate["norm_in"], certificate["norm_out"]], f"it maps from {norms[0]} to {norms[1]}")
    need(not left and "\n" not in "".join(arrays), f"{left[:3]} belong to no layer, or a name has two lines")
    hashes = [f"{name} {certificate[key]}" for name, key in zip(("weights", "architecture", "certificate"), HASHES)]
    return square, f"from {norms[0]} to {norms[1]}, {', '.join(hashes)}"


def check_critic(witness):
    (square, about), claim = bound_critic(witness), float(witness["lipschitz"])
    need(claim >= 0 and square <= Fraction(claim) ** 2, f"it proves only Lip(f) <= {float(root_up(square))!r}")
    return f"Lip(f) <= {claim!r} {about}"


def lowest(samples, points, v):
    """min_j(|z - p_j| - v_j), rounded down, of each z of the samples: integers of integers.

    Boxes of samples are cut up. A box of radius r around c keeps the cones with |c - p_j| - v_j <= 2 r + the least of
    them: within it a distance changes by r at most, so no other is lowest. That is in float64, scaled to [-1, 1]. With
    u = 2^-53 a scaled number is off by u, an operation by u of its result; so r, and a distance less v, are off by at
    most (d + 16) sqrt(d) u, and the comparison by 8 times that. The margin d^2 2^-40 = 8192 d^2 u is larger.
    """
    d, found, origin = len(points[0]), [0] * len(samples), points[0]
    top = max(1, *map(abs, v), *(abs(t - o) for point in samples + points for t, o in zip(point, origin)))
    places = [[(t - o) / top for t, o in zip(z, origin)] for z in samples]
    scaled = [[(t - o) / top for t in column] for column, o in zip(zip(*points), origin)]

    def search(queries, cones, offsets, *columns):
        sides = [*zip(*(places[i] for i in queries))]
        lengths, squares = [max(side) - min(side) for side in sides], [0.0] * len(cones)
        for middle, column in zip([(max(side) + min(side)) / 2 for side in sides], columns):
            squares = [s + (t - middle) * (t - middle) for s, t in zip(squares, column)]
        values = [sqrt(s) - of for s, of in zip(squares, offsets)]
        most = min(values) + sqrt(sum(map(mul, lengths, lengths))) + d * d / 2**40
        kept = [value <= most for value in values]
        cones, *columns = (list(compress(each, kept)) for each in (cones, offsets, *columns))
        if len(queries) == 1:
            z, near = samples[queries[0]], [(points[j], v[j]) for j in cones]
            found[queries[0]] = min(isqrt(sum((s - t) ** 2 for s, t in zip(z, p))) - of for p, of in near)
            return
        order = [i for _, i in sorted(zip(sides[lengths.index(max(lengths))], queries))]
        quarter = -(-len(order) // 4)
        for k in range(0, len(order), quarter):
            search(order[k : k + quarter], cones, *columns)

    search(range(len(samples)), range(len(points)), [of / top for of in v], *scaled)
    return found


def check_interval(witness):
    names, apexes = ("x", "y", "a", "b", "offsets", "mass", "rows", "columns"), witness["apexes"]
    x, y, a, b, offsets, mass, rows, columns = arrays = [Array(witness[name]) for name in names]
    (n, d), (m, _), (edges,), (k, _) = x.shape, y.shape, mass.shape, {"x": x, "y": y}[apexes].shape
    fit = [array.shape for array in arrays] == [(n, d), (m, d), (n,), (m,), (k,), *[(edges,)] * 3]
    need(fit and {array.dtype for array in arrays[:6]} == {"float64"}, "its arrays do not fit, or are not float64")
    need(min(a.values + b.values + mass.values + rows.values + columns.values) >= 0, "it holds a negative mass")
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
    least, most = float(witness["lower"]), float(witness["upper"])
    need(least <= max(lower, 0) and upper <= most, f"it proves only {float(lower)!r} <= W1 <= {float(upper)!r}")
    return f"{least!r} <= W1 <= {most!r} of {n} and {m} points of R^{d}, sha256 {hashes}"


def once(pairs):
    need(len(dict(pairs)) == len(pairs), "a name appears twice")
    return dict(pairs)


def main(path):
    try:
        with open(path, encoding="utf-8") as file:
            witness = json.load(file, object_pairs_hook=once)
        line = f"PROVED: {(check_critic if 'certificate' in witness else check_interval)(witness)}"
    except Exception as error:  # whatever it is, nothing is proved
        line = f"NOT PROVED: {error!r}"
    print(line)
    return int(line.startswith("NOT"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
