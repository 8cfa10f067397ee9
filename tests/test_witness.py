"""Witnesses and their checker: every kind of layer, exact W1, and spoils of all sorts, of which none may pass."""

from __future__ import annotations

import ast
import base64
import copy
import hashlib
import json
import math
import random
import shutil
import struct
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import wgan_lip
import wgan_lip.cli.estimate as estimating
from wgan_lip import certify
from wgan_lip.cli import main
from wgan_lip.critics import (
    ConvolutionalCritic,
    FixedWidthCritic,
    ImageCritic,
    MeanCritic,
    PenalizedCritic,
    ResNetCritic,
    SortingCritic,
    SpectralNormCritic,
    clipped,
    maximum,
    minimum,
    mixture,
    weighted_sum,
)
from wgan_lip.critics.base import Critic
from wgan_lip.data.oracles import RayMonotone
from wgan_lip.lipschitz import check_witness as checker
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import (
    Conv2d,
    ConvGradientFlow,
    Flatten,
    GradientFlow,
    Linear,
    LipschitzLayer,
    MaxMin,
    Normalize,
    PixelShuffle,
    PixelUnshuffle,
    Spline,
    Unflatten,
)
from wgan_lip.lipschitz.layers.normalised import ClippedLinear
from wgan_lip.lipschitz.witness import CHECKER, critic_witness, encoded, save_witness
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError, UncertifiableError
from wgan_lip.utils.discovery import concrete_subclasses


def as_read(witness):
    """Through JSON and back, as the checker gets it."""
    return json.loads(json.dumps(witness))


def accepted(witness) -> bool:
    try:
        (checker.check_critic if "certificate" in witness else checker.check_interval)(as_read(witness))
    except Exception:  # as `main` does
        return False
    return True


def squared(witness) -> float:
    return float(checker.bound_critic(as_read(witness))[0])


# --- the one file -----------------------------------------------------------------------------------------------------


def test_the_checker_is_one_short_file_that_imports_the_standard_library_only():
    source = CHECKER.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    names = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert names == {"base64", "fractions", "hashlib", "itertools", "json", "math", "operator", "struct", "sys"}


def checked_alone(path, folder):
    """The checker, copied elsewhere, in a Python without any installed package."""
    alone = shutil.copy(CHECKER, folder / "anything.py")
    isolated = [sys.executable, "-I", "-S"]
    assert subprocess.run([*isolated, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    return subprocess.run([*isolated, alone, path], capture_output=True, text=True, check=False, timeout=60)


def test_the_default_critic_on_digits_is_checked_without_torch(tmp_path):
    critic = ResNetCritic(64)  # what `wgan-lip train` takes
    constant = save_witness(critic, tmp_path / "witness.json")
    certificate = certify(critic)
    assert constant == certificate.lipschitz
    done = checked_alone(tmp_path / "witness.json", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"PROVED: Lip(f) <= {constant!r} from Euclidean(64) to Euclidean(1)")
    assert certificate.weights_sha256 in line and certificate.architecture_sha256 in line


def test_an_estimate_of_w1_is_checked_without_torch(tmp_path):
    rng = np.random.default_rng(0)
    found = wgan_lip.estimate_w1(rng.normal(size=(80, 2)), rng.normal(size=(60, 2)) + 1)
    interval = wgan_lip.certify_plan(found.x, found.y, found.plan, found.dual)
    interval.save_witness(tmp_path / "w1.json")
    done = checked_alone(tmp_path / "w1.json", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"PROVED: {interval.lower!r} <= W1 <= {interval.upper!r} of 80 and 60 points of R^2")
    assert hashlib.sha256(found.x.double().numpy().tobytes()).hexdigest() in done.stdout
    assert interval.lower <= found.exact <= interval.upper < interval.lower * (1 + 1e-12)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"certificate": {}}', '{"x": 1}', '{"x": 1, "x": 2}', "\x00"]
)
def test_what_is_no_witness_proves_nothing(content, tmp_path, capsys):
    (tmp_path / "no.json").write_text(content)
    assert checker.main(str(tmp_path / "no.json")) == 1
    assert checker.main(str(tmp_path / "absent.json")) == 1
    assert [line[:10] for line in capsys.readouterr().out.splitlines()] == ["NOT PROVED"] * 2


def test_files_of_odd_forms_prove_nothing_false(tmp_path, capsys):
    """Text that JSON readers take differently: what is not refused says no more than is true."""
    critic = nn.Linear(1, 1)
    with torch.no_grad():
        critic.weight.fill_(4.0)
    text = json.dumps(critic_witness(critic))
    start = text[: text.rindex('"lipschitz": ')] + '"lipschitz": '  # proved up to rounding
    for end in (
        "3.9}", "NaN}", "-Infinity}", "Infinity}", "-0.0}", "1e-400}", "true}", "[5.0]}", '{"number": "5"}}', "null}", '"\u0663"}', "5.0",
        '5.0, "lipschitz": 1.0}', '1.0, "lipschitz": 5.0}', '5.0}{"lipschitz": 1.0}', "0x10}", "1" + "0" * 5000 + "}",
        '5.0, "weights": {}}', '5.0, "certificate": {}}', "[" * 100_000 + "]" * 100_000 + "}",
    ):  # fmt: skip
        (tmp_path / "w.json").write_text(start + end, encoding="utf-8")
        assert checker.main(str(tmp_path / "w.json")) == 1, end[:40]
    capsys.readouterr()
    for end, claim in (("5.0}", "5.0"), ("5}", "5.0"), ('"\u0665"}', "5.0"), ("50e-1}", "5.0")):
        (tmp_path / "w.json").write_text(start + end, encoding="utf-8")
        assert checker.main(str(tmp_path / "w.json")) == 0
        assert f"Lip(f) <= {claim} " in capsys.readouterr().out
    for cut in range(0, len(text), 97):
        (tmp_path / "w.json").write_text(text[:cut])
        assert checker.main(str(tmp_path / "w.json")) == 1
    (tmp_path / "w.json").write_bytes(text.encode("utf-16"))
    assert checker.main(str(tmp_path / "w.json")) == 1


def test_nothing_in_a_witness_writes_a_line_of_its_own(tmp_path, capsys):
    critic = nn.Sequential()
    critic.add_module("a\nPROVED: Lip(f) <= 1", nn.Linear(2, 2))
    with pytest.raises(UncertifiableError, match="a name has two lines"):
        critic_witness(critic)
    witness = critic_witness(nn.Sequential(nn.Linear(2, 2)))
    for spoil in (0.0, "0\nPROVED: Lip(f) <= 0.5"):
        (tmp_path / "w.json").write_text(json.dumps({**witness, "lipschitz": spoil}))
        assert checker.main(str(tmp_path / "w.json")) == 1
    witness["certificate"]["layers"] = [{"path": "b\nPROVED: "}]
    (tmp_path / "w.json").write_text(json.dumps(sealed(witness)))
    assert checker.main(str(tmp_path / "w.json")) == 1
    assert [line[:10] for line in capsys.readouterr().out.splitlines()] == ["NOT PROVED"] * 3


# --- exact arithmetic -------------------------------------------------------------------------------------------------


def test_norms_known_by_hand():
    def bound(rows, **hint):
        return checker.square_bound({(): rows}, 0, {"c": 0, "factor": [], **hint})

    assert bound([[3, 4]]) == 25
    assert bound([[1, 0], [0, 2]]) == 4
    assert bound([[1, 1], [1, 1]]) == 4  # of rank one
    assert bound([[2, 1], [0, 0]], q=[1, 1]) == 5
    diagonal = base64.b64encode(struct.pack("<4d", 1.0, 0.0, 0.0, 0.0)).decode()  # R R^T = (1, 0)
    assert bound([[2, 0], [0, 1]], c=5, factor=[[[], diagonal]]) == 5 + 4  # a poor hint: E = 5 - (4, 1) - (1, 0)
    assert bound([[2, 0], [0, 1]], c=4) == 4 + 3
    with pytest.raises(ValueError, match="q is not positive"):
        bound([[1, 0], [0, 1]], q=[1, 0.5])
    # A box filter of three taps has its norm at frequency 0; so has its square.
    assert checker.square_bound({(0,): [[1]], (1,): [[1]], (2,): [[1]]}, 0, {"c": 0, "factor": []}) == 9
    assert checker.square_bound({(0,): [[1]], (1,): [[-1]]}, 1, {"c": 0, "factor": []}) == 1  # (1 - z)/2


entries = st.integers(-(2**20), 2**20)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_hint_makes_a_norm_too_small(data):
    """Of a convolution on the line, for any c, R and q, against the dense matrix on a torus of 12 pixels."""
    rows, columns, taps = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel = np.array(data.draw(st.lists(entries, min_size=rows * columns * taps, max_size=rows * columns * taps)))
    kernel = kernel.reshape(taps, rows, columns)
    number = st.floats(-(2.0**22), 2.0**22)
    factor = [
        [[shift], base64.b64encode(np.array(data.draw(st.lists(number, min_size=rows**2, max_size=rows**2))).tobytes()).decode()]
        for shift in range(data.draw(st.integers(0, 2)))
    ]  # fmt: skip
    hint = {
        "c": data.draw(st.floats(-(2.0**45), 2.0**45)),
        "factor": factor,
        "q": data.draw(st.lists(st.integers(1, 9), min_size=rows, max_size=rows)),
    }
    bound = checker.square_bound({(t,): kernel[t].tolist() for t in range(taps)}, 10, hint)
    dense = np.zeros((12, rows, 12, columns))
    for at in range(12):
        for t in range(taps):
            dense[at, :, (at + t) % 12] += kernel[t]
    norm = np.linalg.norm(dense.reshape(12 * rows, 12 * columns), 2) / 2**10
    assert math.sqrt(bound) >= norm * (1 - 1e-12)


@given(st.fractions(min_value=0, max_value=10**40))
def test_roots_are_rounded_up(number):
    root = checker.root_up(number)
    assert root**2 >= number and root**2 <= number * (1 + Fraction(1, 2**90)) + Fraction(1, 2**150)


# --- every kind of layer ----------------------------------------------------------------------------------------------

LAYERS = [
    (f"{kind.__name__}-{index}", layer)
    for kind in concrete_subclasses(LipschitzLayer)
    if kind.__module__.startswith("wgan_lip.")
    for index, (layer, _) in enumerate(kind.examples())
] + [
    ("nn.Linear", nn.Linear(3, 5)),
    ("half", nn.Linear(4, 3).half()),
    ("float64", Linear(Norm.euclidean(4), Norm.euclidean(3)).double()),
]
CRITICS = [
    (f"{kind.__name__}-{index}", critic)
    for kind in concrete_subclasses(Critic)
    if kind.__module__.startswith("wgan_lip.critics.")
    for index, critic in enumerate(
        [kind(3, width=6, depth=2)] if kind.__name__ in ("ClippedCritic", "PenalizedCritic", "SpectralNormCritic", "SortingCritic", "ResNetCritic") else kind.examples()
    )
] + [
    ("maxima", ResNetCritic(3, width=4, depth=2, norm="max")),
    ("cones", ResNetCritic(3, width=4, depth=1, readout="cones", centers=5, heads=2)),
    ("splines", ResNetCritic(3, width=4, depth=1, activation="spline")),
    ("clipped from below", clipped(SortingCritic(2, width=4, depth=1), low=-1.0)),
    ("the same twice", maximum(*[ResNetCritic(2, width=4, depth=1)] * 2)),
    ("clipped", clipped(weighted_sum([ResNetCritic(2, width=4, depth=1), maximum(SortingCritic(2, width=4, depth=1))], [0.5, -2.0], 1.0), -1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("spiked", [False, True], ids=["as built", "spiked"])
@pytest.mark.parametrize(("name", "layer"), LAYERS + CRITICS, ids=[name for name, _ in LAYERS + CRITICS])
def test_integers_prove_what_floating_point_proved(name, layer, spiked):
    """The two share no line of code. Where windows overlap the Fourier bound of the certificate may be lower."""
    layer = copy.deepcopy(layer)
    if spiked:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(1 + 3 * torch.rand_like(parameter))
    witness = critic_witness(layer)
    assert accepted(witness)
    constant = certify(layer).lipschitz
    assert witness["lipschitz"] >= constant
    overlapping = any(
        isinstance(part, Conv2d | ConvGradientFlow) and not part.convolution.disjoint for part in layer.modules()
    )
    if not overlapping:
        assert witness["lipschitz"] == constant
        assert math.sqrt(squared(witness)) == pytest.approx(constant, rel=1e-9)
    else:
        assert witness["lipschitz"] <= 2.1 * constant


def test_norms_of_matrices_are_those_of_singular_values():
    torch.manual_seed(3)
    for shape in ((5, 5), (2, 7), (7, 2), (1, 4), (4, 1), (40, 30)):
        layer = nn.Linear(*shape)
        for scale in (1.0, 1e-30, 1e30):
            with torch.no_grad():
                layer.weight.copy_(scale * torch.randn(*shape[::-1]))
            norm = np.linalg.norm(layer.weight.detach().double().numpy(), 2)
            assert math.sqrt(squared(critic_witness(layer))) == pytest.approx(norm, rel=1e-12)


def test_windows_that_overlap_get_the_sum_of_sizes_and_no_less_than_the_norm():
    layer = Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    assert math.sqrt(squared(critic_witness(layer))) == pytest.approx(9, rel=1e-12)  # the box filter, at frequency 0
    torch.manual_seed(5)
    for _ in range(5):
        layer = Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1)
        with torch.no_grad():
            layer.weight.normal_()
        image = torch.zeros(1, 2, 9, 8)
        columns = torch.autograd.functional.jacobian(lambda z, layer=layer: layer(z) - layer.bias[:, None, None], image)
        norm = np.linalg.norm(columns.reshape(-1, image.numel()).numpy(), 2)
        assert math.sqrt(squared(critic_witness(layer))) >= norm * (1 - 1e-6)


def test_a_layer_without_a_witness_is_named():
    class Mine(GradientFlow):  # of the package's formula, as it happens, but no one has read it
        pass

    for layer, message in (
        (Mine(2, 2), "At '1': there is no witness for Mine yet"),
        (nn.Tanh(), "At '1': there is no witness for Tanh yet"),
        (nn.Conv2d(1, 1, 2), "At '1': there is no witness for Conv2d yet"),
    ):
        with pytest.raises(UncertifiableError, match=message):
            critic_witness(nn.Sequential(Flatten(2) if isinstance(layer, Mine) else PixelShuffle(1), layer))
    with pytest.raises(UncertifiableError, match=r"float64, float32.*weight is bfloat16"):
        critic_witness(nn.Linear(2, 2).bfloat16())


# --- spoils -----------------------------------------------------------------------------------------------------------


def sealed(witness):
    """With hashes that fit, as who forges a witness would make them."""
    certificate = witness["certificate"]
    lines = b"".join(
        f"{name} torch.{array['dtype']} {tuple(array['shape'])}\n".encode() + base64.b64decode(array["data"])
        for name, array in sorted(witness["weights"].items())
    )
    certificate["weights_sha256"] = hashlib.sha256(lines).hexdigest()
    text = json.dumps(witness["architecture"], sort_keys=True).encode()
    certificate["architecture_sha256"] = hashlib.sha256(text).hexdigest()
    text = json.dumps({k: v for k, v in certificate.items() if k != "sha256"}, sort_keys=True).encode()
    certificate["sha256"] = hashlib.sha256(text).hexdigest()
    return witness


def small_critics():
    torch.manual_seed(11)
    return [
        ResNetCritic(3, width=4, depth=2),
        SortingCritic(3, width=4, depth=2),
        FixedWidthCritic(2, depth=1),
        ConvolutionalCritic((1, 5, 6), channels=4, width=4, depth=1),
        ImageCritic((1, 4, 5), axes=3, depth=1),
        SpectralNormCritic(3, width=4, depth=1),
        PenalizedCritic(3, width=4, depth=1),
        ResNetCritic(3, width=4, depth=1, norm="max"),
        ResNetCritic(2, width=4, depth=1, readout="cones", centers=4),
        nn.Sequential(Spline(3), ClippedLinear(3, 2, 0.5)),
        maximum(ResNetCritic(3, width=4, depth=1), SortingCritic(3, width=4, depth=1)),
        clipped(
            weighted_sum([SortingCritic(2, width=4, depth=1), ResNetCritic(2, width=4, depth=1)], [0.5, -2]), -1, 1
        ),
        mixture(SortingCritic(2, width=4, depth=1), minimum(ResNetCritic(2, width=4, depth=1))),
        MeanCritic(ResNetCritic(2, width=4, depth=1), members=3),
    ]


def numbers(array):
    raw = base64.b64decode(array["data"])
    return np.frombuffer(raw, array["dtype"]).reshape(array["shape"]).astype(float)


def constant(described, path, weights):
    """The constant of a layer by singular values in floating point, from its description alone."""
    kind, settings, parts = described
    weight = weights.get(f"{path}.weight")
    if kind == "Sequential":
        return math.prod(constant(part, f"{path}.{name}", weights) for name, part in parts)
    if kind in ("Parallel", "Maximum", "Minimum", "WeightedSum", "Mixture"):
        inner = [constant(part, f"{path}.layers.{name}", weights) for name, part in parts[0][1][2]]
        if kind in ("Parallel", "Maximum", "Minimum"):
            return max(inner)
        given = weight[0] if kind == "Mixture" else [float(Fraction(w["number"])) for w in settings["weights"]]
        return np.abs(given) @ inner
    if kind in ("GradientFlow", "ConvGradientFlow"):
        low, high = {"Pointwise": (0, 1), "Absolute": (-1, 1)}[parts[0][1][0]]
        assert kind == "GradientFlow" or settings["convolution"]["Convolution"][1][1] == [number(2)] * 2
        square = np.linalg.norm(weight.reshape(len(weight), -1), 2) ** 2 * float(weights[f"{path}.tau"])
        return max(1.0, high * square - 1, 1 - low * square)
    if kind == "Linear" and "norm_in" in settings:
        before, after = (
            [int(size["number"]) for size in settings[name]["Norm"][0][1]] for name in ("norm_in", "norm_out")
        )
        cut = [np.split(row, np.cumsum(before)[:-1], axis=1) for row in np.split(weight, np.cumsum(after)[:-1])]
        return max(sum(np.linalg.norm(block, 2) for block in row) for row in cut)
    if kind == "SpectralNormLinear":
        return np.linalg.norm(weight, 2) / np.linalg.norm(weights[f"{path}.u"] @ weight)
    if kind in ("Linear", "ClippedLinear", "Conv2d", "PrincipalEnergies"):
        assert kind != "Conv2d" or settings["convolution"]["Convolution"][1][1] == [number(2)] * 2
        norm = np.linalg.norm(weight.reshape(len(weight), -1), 2)
        if kind == "PrincipalEnergies":
            shared, square = weights[f"{path}.shares"].sum(0).max(), norm**2
            return math.sqrt(max(shared, square + shared * (1 - square) ** 2))
        return norm
    if kind == "Spline":
        return np.abs(weights[f"{path}.slope"]).max()
    assert kind in (
        "Flatten",
        "Unflatten",
        "Squeeze",
        "GroupSort",
        "MaxMin",
        "Identity",
        "Pointwise",
        "Cones",
        "Absolute",
        "Hardtanh",
    )
    return 1.0


def constant_of(witness):
    """Of the whole critic, likewise."""
    weights = {name: numbers(array) for name, array in witness["weights"].items()}
    paths = [layer["path"] for layer in witness["certificate"]["layers"]]
    paths = [path for path in paths if not any(path.startswith(f"{join}.") for join in paths)]
    return math.prod(constant(*each, weights) for each in zip(witness["architecture"], paths))


CRITIC_SPOILS = 210


def test_no_spoiled_weights_pass_with_a_claim_that_floating_point_refutes():
    """Weights changed at random and all hashes made to fit: what passes is true of the new weights."""
    rng, passed, refused = random.Random(0), 0, 0
    witnesses = [critic_witness(critic) for critic in small_critics()]
    for trial in range(CRITIC_SPOILS):
        witness = copy.deepcopy(witnesses[trial % len(witnesses)])
        for _ in range(rng.choice([1, 1, 3])):
            name = rng.choice(sorted(witness["weights"]))
            array = witness["weights"][name]
            values = np.frombuffer(base64.b64decode(array["data"]), np.float32).copy()
            at = rng.randrange(len(values))
            values[at] = rng.choice([
                -values[at], 0, values[at] * 1.001, values[at] * 0.9, 3.0, -1e30, 1e-40, rng.gauss(0, 1), values[at] + 1e-6,
            ])  # fmt: skip
            array["data"] = base64.b64encode(values.tobytes()).decode()
        forged = sealed(copy.deepcopy(witness))
        same = forged["weights"] == witnesses[trial % len(witnesses)]["weights"]
        assert not accepted(witness) or same  # the hashes no longer fit
        if accepted(forged):
            passed += 1
            assert constant_of(forged) <= forged["lipschitz"] * (1 + 1e-9)
        else:
            refused += 1  # among them claims that stayed true, whose hints no longer fit
    assert passed > 20 and refused > 20


def edited(value, change):
    """Every dictionary and list with `change` at its leaves and nodes."""
    found = change(value)
    if found is not None:
        return found
    if isinstance(value, dict):
        return {key: edited(part, change) for key, part in value.items()}
    return [edited(part, change) for part in value] if isinstance(value, list) else value


def number(n):
    return {"number": str(n)}


ARCHITECTURES = {
    "a kind that is not there": lambda v: "Cubing" if v == "GroupSort" else "Magic" if v == "GradientFlow" else None,
    "sorting passed off as cones": lambda v: "Cones" if v in ("GroupSort", "MaxMin", "Linear") else None,
    "a steeper activation": lambda v: "Absolute" if v == "Pointwise" else None,
    "an unknown activation": lambda v: "cube" if v == "relu" else None,
    "a norm of other blocks": lambda v: {"Norm": [["blocks", [number(1)] * 4]]} if v == {"Norm": [["blocks", [number(4)]]]} else None,
    "a norm of fewer": lambda v: {"Norm": [["blocks", [number(3)]]]} if v == {"Norm": [["blocks", [number(4)]]]} else None,
    "windows that overlap": lambda v: ["stride", [number(1), number(1)]] if isinstance(v, list) and v[:1] == ["stride"] else None,
    "more groups": lambda v: ["groups", number(2)] if v == ["groups", number(1)] else None,
    "padding by reflection": lambda v: "reflect" if v == "zeros" else None,
    "a number that is none": lambda v: number("inf") if v == number(4) else None,
    "groups of three": lambda v: number(3) if v == number(2) else None,
    "a flow that is a matrix": lambda v: "Linear" if v == "GradientFlow" else None,
    "a matrix that is a flow": lambda v: "GradientFlow" if v in ("Linear", "SpectralNormLinear") else None,
    "constants by theorem": lambda v: "BjorckLinear" if v in ("GradientFlow", "SpectralNormLinear", "Conv2d") else None,
}  # fmt: skip


def test_no_spoiled_architecture_passes_with_a_smaller_constant_than_its_own():
    """Layers renamed, reshaped, dropped, doubled and exchanged, all hashes made to fit. Most break the map, whose sizes
    or norms no longer meet; of others the claim is held against singular values."""
    tried = refused = 0
    for critic in small_critics():
        witness = critic_witness(critic)
        candidates = []
        for change in ARCHITECTURES.values():
            candidates.append({**witness, "architecture": edited(witness["architecture"], change)})
        layers, kinds = witness["certificate"]["layers"], witness["architecture"]
        for k in range(len(kinds)) if len(layers) == len(kinds) else ():  # not of critics made of critics
            dropped = {**witness["certificate"], "layers": layers[:k] + layers[k + 1 :]}
            candidates.append({**witness, "architecture": kinds[:k] + kinds[k + 1 :], "certificate": dropped})
            twice = {**witness["certificate"], "layers": layers[: k + 1] + layers[k:]}
            candidates.append({**witness, "architecture": kinds[: k + 1] + kinds[k:], "certificate": twice})
            candidates.append({**witness, "architecture": kinds[:k] + kinds[k + 1 :]})
        for candidate in candidates:
            if (
                candidate["architecture"] == witness["architecture"]
                and candidate["certificate"] == witness["certificate"]
            ):
                continue
            tried += 1
            candidate = sealed(copy.deepcopy(candidate))
            if not accepted(candidate):
                refused += 1
                continue
            assert candidate["lipschitz"] >= constant_of(candidate) * (1 - 1e-9)
    assert tried > 150 and 20 < tried - refused < 0.4 * tried


def convolutions():
    torch.manual_seed(7)
    return [
        nn.Sequential(Conv2d(1, 4, 2, stride=2), MaxMin(4, Norm.euclidean()), Conv2d(4, 6, 1)),
        nn.Sequential(
            Unflatten((2, 4, 4)), PixelUnshuffle(2), Conv2d(8, 4, 2, stride=2, groups=2), Flatten(4), nn.Linear(4, 1)
        ),
        nn.Sequential(
            ConvGradientFlow(4, 2, 3, padding=1), PixelShuffle(2), Conv2d(1, 2, 3), Normalize([0, 0], [1, 2])
        ),
    ]


def test_channels_that_do_not_fit_are_refused():
    """Weights of other channels, architectures of other blocks: no such map exists, and none may have a constant."""
    fit = {(0, "0.weight", "in"), (0, "2.weight", "out"), (2, "0.weight", "out")}  # at the ends, and inside a flow
    for at, critic in enumerate(convolutions()):
        witness = critic_witness(critic)
        assert accepted(witness)
        for name in [name for name, array in witness["weights"].items() if len(array["shape"]) == 4]:
            values, bias = (
                numbers(witness["weights"][f"{name[0]}.{key}"]).astype(np.float32) for key in ("weight", "bias")
            )
            for side, spoil in (
                ("in", values[:, :1].repeat(values.shape[1] + 1, axis=1)),
                ("out", values.repeat(2, 0)),
            ):
                weights = {**witness["weights"], name: encoded(spoil, name)}
                weights[f"{name[0]}.bias"] = encoded(bias.repeat(len(spoil) // len(values)), "bias")
                forged = {**witness, "weights": weights, "hints": {}, "lipschitz": 1e9}
                assert accepted(sealed(copy.deepcopy(forged))) == ((at, name, side) in fit), (at, name, side)
    with pytest.raises(UncertifiableError, match="takes 3 channels, and gets 4"):
        critic_witness(nn.Sequential(Conv2d(1, 4, 2, stride=2), Conv2d(3, 1, 1)))
    shapes = critic_witness(convolutions()[1])
    for old, new in (([2, 4, 4], [4, 2, 4]), ([2, 4, 4], [4, 4, 2])):
        before, after = ([number(n) for n in each] for each in (old, new))
        change = lambda v, before=before, after=after: after if v == before else None  # noqa: E731
        spoil = {**shapes, "architecture": edited(shapes["architecture"], change)}
        assert spoil["architecture"] != shapes["architecture"] and not accepted(sealed(copy.deepcopy(spoil)))


def test_bytes_of_samples_are_numbers_of_one_kind(tmp_path):
    """The hash that a reader compares is of bytes: they may not be taken for other numbers."""
    x = np.array([[0.0], [5e-324], [1e-323]])  # the integers 0, 1, 2, byte by byte
    witness, _ = interval_witness(tmp_path, x, x[::-1].copy())
    assert accepted(witness)
    y = np.array([[5e-324], [1e-323], [1.5e-323]])
    apart, _ = interval_witness(tmp_path, x, y)
    forged, _ = interval_witness(tmp_path, [[0.0], [1.0], [2.0]], [[1.0], [2.0], [3.0]])
    for name in "xy":
        forged[name] = {**apart[name], "dtype": "int64"}
    assert numbers(forged["y"]).tolist() == [[1], [2], [3]]  # at a distance of 1 from x
    assert not accepted(forged)


def test_a_name_holds_no_other_weight():
    """Weights are hashed one behind the other, each behind its name: what one name holds could be another weight."""
    critic = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        critic[0].weight.zero_()  # bytes that are text
    witness = critic_witness(critic)
    forged = copy.deepcopy(witness)
    first = forged["weights"].pop("0.weight")
    at = f"0.weight torch.float32 (1, 1)\n{base64.b64decode(first['data']).decode()}1"
    forged["weights"] = {f"{at}.weight": forged["weights"].pop("1.weight")}
    forged["architecture"] = forged["architecture"][1:]
    forged["certificate"]["layers"] = [{**forged["certificate"]["layers"][1], "path": at}]
    forged["lipschitz"] = 1e9
    before = witness["certificate"]["weights_sha256"]
    assert sealed(forged)["certificate"]["weights_sha256"] == before
    assert not accepted(forged)


def test_a_line_names_the_certificate_that_says_which_weights_a_layer_has():
    """Two layers that exchange their weights leave the hashes of weights and architecture as they were."""
    critic = nn.Sequential(Linear(Norm((2,)), Norm((1, 1))), Linear(Norm((1, 1)), Norm((2,))))
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    witness = critic_witness(critic)
    line = checker.check_critic(as_read(witness))
    forged = copy.deepcopy(witness)
    forged["certificate"]["layers"] = forged["certificate"]["layers"][::-1]
    forged["hints"] = {}
    forged["lipschitz"] = 10.0
    other = checker.check_critic(as_read(sealed(forged)))
    for name in ("weights_sha256", "architecture_sha256", "sha256"):
        assert witness["certificate"][name] in line
        assert (witness["certificate"][name] in other) == (name != "sha256")


def test_claims_hashes_and_hints():
    rng = random.Random(1)
    for critic in small_critics():
        witness = critic_witness(critic)
        bound = math.sqrt(squared(witness))
        assert witness["lipschitz"] <= bound * (1 + 1e-9)
        for claim in (bound * (1 - 1e-14), 0.0, -2.0, math.nan, None, "one", math.nextafter(bound, 0) * (1 - 1e-15)):
            assert not accepted({**witness, "lipschitz": claim})
        assert accepted({**witness, "lipschitz": 2 * bound})
        for name in ("sha256", "weights_sha256", "architecture_sha256", "norm_in", "units", "layers"):
            certificate = {**witness["certificate"], name: "0" * 64}
            assert not accepted({**witness, "certificate": certificate})
        for name in ("norm_in", "norm_out"):
            certificate = {**witness["certificate"], name: "max(3)"}
            assert not accepted(sealed(copy.deepcopy({**witness, "certificate": certificate})))
        extra = {**witness["weights"], "more.weight": encoded(np.ones(2), "more")}
        assert not accepted(sealed(copy.deepcopy({**witness, "weights": extra})))
        for name in list(witness["weights"]):
            fewer = {key: array for key, array in witness["weights"].items() if key != name}
            if not name.endswith("bias"):
                assert not accepted(sealed(copy.deepcopy({**witness, "weights": fewer})))
        for name, hint in witness["hints"].items():  # a spoiled hint proves less, or nothing, and never more
            size = len(base64.b64decode(hint["factor"][0][1])) // 8 if hint["factor"] else 1
            noise = base64.b64encode(struct.pack(f"<{size}d", *(rng.gauss(0, 1) for _ in range(size)))).decode()
            for spoil in (
                {"c": hint["c"] * 0.5}, {"c": -1.0}, {"c": 0.0}, {"c": "1e9"}, {"factor": []}, {"factor": [[[], noise]]},
                {"factor": [[[0, 0], noise], [[0, 1], noise]]}, {"q": [1]}, {"q": [0.1, 0.1]},
            ):  # fmt: skip
                hints = {**witness["hints"], name: {**hint, **spoil}}
                try:
                    assert squared({**witness, "hints": hints}) >= bound**2 * (1 - 1e-9)
                except (ValueError, TypeError, struct.error):
                    assert not accepted({**witness, "hints": hints})


# --- intervals --------------------------------------------------------------------------------------------------------


def interval_witness(tmp_path, x, y, a=None, b=None, potential=None):
    solved = solve(x, y, a=a, b=b)
    found = wgan_lip.certify_plan(x, y, solved.plan, solved.potential if potential is None else potential, a=a, b=b)
    found.save_witness(tmp_path / "interval.json")
    return json.loads((tmp_path / "interval.json").read_text()), found


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e150])
def test_an_interval_is_proved_in_any_unit(scale, tmp_path):
    rng = np.random.default_rng(2)
    x = scale * rng.normal(size=(7, 3))
    witness, found = interval_witness(tmp_path, x, x + scale * np.array([3.0, 4.0, 0.0]))  # W1 of a shift is its length
    assert accepted(witness)
    assert found.lower <= 5 * scale * (1 + 1e-12) and found.upper >= 5 * scale * (1 - 1e-12)
    assert found.upper - found.lower < 1e-12 * scale
    for end, beyond in (("lower", 1 + 1e-12), ("upper", 1 - 1e-12)):
        assert not accepted({**witness, end: witness[end] * beyond})
    nothing, _ = interval_witness(tmp_path, x, x)
    assert accepted(nothing) and nothing["upper"] == 0.0


def test_whoever_has_one_end_has_no_witness(tmp_path):
    with pytest.raises(InputError, match="both ends"):
        wgan_lip.certify_plan([[0.0]], [[1.0]], [[1.0]]).save_witness(tmp_path / "no.json")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_lowest_cones_are_those_of_brute_force(data):
    """Of integers, with ties, with copies, on lattices, far from 0, and with cones that lie above all others."""
    d, unit = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 7, 2**80 + 1]))
    far = data.draw(st.sampled_from([0, 2**90]))
    coordinate = st.integers(-9, 9) | st.integers(-(2**70), 2**70)
    point = st.lists(coordinate.map(lambda t: unit * t + far), min_size=d, max_size=d)
    samples, points = (data.draw(st.lists(point, min_size=1, max_size=30)) for _ in range(2))
    v = data.draw(st.lists(coordinate.map(lambda t: unit * t), min_size=len(points), max_size=len(points)))
    if data.draw(st.booleans()):  # a potential: all cones touch it
        v = [-unit * max(abs(t - far) for t in p) // unit for p in points]
    distances = [[math.isqrt(sum((s - t) ** 2 for s, t in zip(z, p))) for p in points] for z in samples]
    assert checker.lowest(samples, points, v) == [min(r - of for r, of in zip(row, v)) for row in distances]


def many(n=2500):
    """A pair of sample sets in the plane whose optimal plan and potential are known, as a witness, and W1."""
    oracle = RayMonotone(dim=2, funnels=16, seed=1)
    x, y = oracle.pair(n, torch.Generator().manual_seed(0))
    ones, order, v = np.ones(n), np.arange(n), -oracle.potential(y)
    arrays = {"x": x, "y": y, "a": ones, "b": ones, "offsets": v, "mass": ones, "rows": order, "columns": order}
    truth = math.fsum((x - y).norm(dim=1).tolist()) / n
    coded = {name: encoded(array, name) for name, array in arrays.items()}
    return {**coded, "apexes": "y", "lower": truth - 1e-13, "upper": truth + 1e-13}, arrays, truth


def test_many_points_of_the_plane_are_proved_too(monkeypatch):
    looked_at = []
    monkeypatch.setattr(checker, "isqrt", lambda number: looked_at.append(number) or math.isqrt(number))
    witness, arrays, truth = many()
    assert accepted(witness)
    assert len(looked_at) < 5 * 2500  # roots of integers, and not one for each of 6 million pairs
    monkeypatch.undo()

    witness, arrays, truth = many(300)
    assert accepted(witness)

    def spoiled(name, values):
        return {**witness, name: encoded(values, name)}

    x, y, v = (np.asarray(arrays[name]).copy() for name in ("x", "y", "offsets"))
    away = x.copy()
    away[7] += (x[7] - y[7]) / np.linalg.norm(x[7] - y[7])  # along its ray: W1 grows by 1/n, whatever else is true
    assert not accepted(spoiled("x", away))
    columns = np.arange(len(y))
    columns[:2] = 1, 0
    v[3] += 1e-6
    for spoil in (
        {**witness, "lower": truth + 1e-12}, {**witness, "upper": truth - 1e-12}, {**witness, "apexes": "x"},
        {**witness, "apexes": "z"}, {**witness, "x": {**witness["x"], "dtype": "int64"}}, spoiled("columns", columns), spoiled("columns", columns[:-1]),
        spoiled("mass", 1.0 - np.eye(1, len(x), 5)[0]), spoiled("offsets", v), spoiled("offsets", -v),
        spoiled("rows", np.full(len(x), 3)), spoiled("y", y[::-1].copy()), spoiled("x", y),
    ):  # fmt: skip
        assert not accepted(spoil)


def test_no_spoiled_interval_passes_unless_it_holds(tmp_path):
    """Samples, weights, plans and cones changed at random; what passes is held against the exact solver."""
    rng, passed = np.random.default_rng(3), 0
    for trial in range(120):
        n, m, d = rng.integers(1, 6, 3)
        x, y = rng.normal(size=(n, d)).round(2), rng.normal(size=(m, d)).round(2)
        a, b = rng.integers(1, 4, n).astype(float), rng.integers(1, 4, m).astype(float)
        witness, _ = interval_witness(tmp_path, x, y, a, b, None if trial % 2 else (None, rng.normal(size=m)))
        assert accepted(witness)
        names = ["x", "y", "a", "b", "offsets", "mass", "rows", "columns", "lower", "upper", "apexes"]
        name = names[trial % len(names)]
        if name in ("lower", "upper"):
            witness[name] *= 1 + rng.normal()
        elif name == "apexes":
            witness[name] = "x" if witness[name] == "y" else "y"
        else:
            array = witness[name]
            kind = "<i8" if array["dtype"] == "int64" else "<f8"
            values = np.frombuffer(base64.b64decode(array["data"]), kind).copy()
            at = rng.integers(len(values))
            values[at] = rng.integers(-1, 6) if kind == "<i8" else values[at] * rng.choice([1.1, 0.9, -1, 0, 1 + 1e-9])
            array["data"] = base64.b64encode(values.tobytes()).decode()
        if accepted(witness):
            passed += 1
            (x, y), (a, b) = (
                [np.frombuffer(base64.b64decode(witness[k]["data"])).reshape(witness[k]["shape"]) for k in pair]
                for pair in (("x", "y"), ("a", "b"))
            )
            truth = solve(x, y, a=a, b=b)
            assert witness["lower"] <= truth.upper and truth.lower <= witness["upper"]
    assert 10 < passed < 110


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_writes_a_witness_and_says_how_to_check_it(tiny_run, tmp_path, monkeypatch, capsys):
    shutil.copytree(tiny_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert main(["certify", "run=run", "witness=proof.json"]) == 0
    screen = capsys.readouterr().out
    assert f"python {CHECKER} proof.json" in screen
    assert checker.main("proof.json") == 0
    assert json.loads((tmp_path / "run" / "certificate.json").read_text())["weights_sha256"] in capsys.readouterr().out
    assert main(["certify", "run=run", "witness=absent/proof.json"]) != 0
    assert "absent" in capsys.readouterr().err


def test_an_estimate_writes_its_witness(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimating, "_figures", lambda *_: {})
    rng = np.random.default_rng(4)
    np.save("x.npy", rng.normal(size=(30, 2)).astype(np.float32))
    np.save("y.npy", rng.normal(size=(20, 2)) + 1)
    np.savetxt("a.txt", rng.integers(1, 5, 30))
    command = ["estimate", "x=x.npy", "y=y.npy", "a=a.txt", "critic=null"]
    assert main([*command, "witness=w1.json", "hydra.run.dir=run"]) == 0
    assert f"python {CHECKER} w1.json" in capsys.readouterr().out
    assert checker.main("w1.json") == 0
    assert hashlib.sha256(np.load("x.npy").astype("<f8").tobytes()).hexdigest() in capsys.readouterr().out
    exact = json.loads((tmp_path / "run" / "result.json").read_text())["exact"]
    witness = json.loads((tmp_path / "w1.json").read_text())
    assert witness["lower"] <= exact <= witness["upper"] < witness["lower"] * (1 + 1e-12)

    monkeypatch.setattr(estimating, "WITNESSED", 25)
    monkeypatch.setattr(estimating, "IN_PLANE", 29)
    assert main([*command, "witness=w1.json", "hydra.run.dir=more"]) != 0
    told = capsys.readouterr().err
    assert (
        "at most 25 samples a side (29 in the plane), so that its check takes minutes, not 30 in dimension 2."
        in " ".join(told.split())
    )
    assert main(["estimate", "x=data/digits", "by=class", "witness=w1.json", "hydra.run.dir=more"]) != 0
    assert "witness is for one pair of sample sets, and by makes many." in capsys.readouterr().err
    assert not (tmp_path / "more").exists()
