"""Suite gpu: all that only a GPU can show, in stages of a few minutes each, and the long training in pieces of them."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_lip.benchmarks.cases import parse_overrides, some_of
from wgan_lip.benchmarks.machine import write_page, write_results
from wgan_lip.benchmarks.step_cost import convolutions, perceptron
from wgan_lip.benchmarks.wgan import train_case
from wgan_lip.critics import ConvolutionalCritic, Critic, PenalizedCritic, ResNetCritic
from wgan_lip.data import CIFAR10, FakeImages, FiniteSource, ImageFolder
from wgan_lip.generators import ResNetGenerator
from wgan_lip.lipschitz.certificates import certify
from wgan_lip.lipschitz.layers import Squeeze, constrain_steps
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.runs.folder import read_json
from wgan_lip.runs.run import Run
from wgan_lip.training import Evaluation, Record, train
from wgan_lip.training.capturing import CAPTURES, CapturedStep, moved_by
from wgan_lip.transport import meet, narrow
from wgan_lip.utils.checks import InputError, check_choice
from wgan_lip.utils.devices import find_device
from wgan_lip.utils.tables import markdown_table
from wgan_lip.wasserstein.dual import ascend

__all__ = ["STAGES", "measure"]

MINUTES = 8.0
PENALTY = 10.0
LARGE, SMALL = "large", "small"


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        width, batch: Of the wide residual critic, and samples of both laws in its steps.
        depth: Of all residual critics.
        image: (c, h, w) of the image critic's.
        image_batch: Samples of both laws in its steps.
        steps: Timed of each kind.
        recipe_steps: Generator steps of a recipe.
        points: Of either side that is priced exactly; of either side that is enclosed.
        record: Generator steps of the training of record, and steps between its scores.
        channels: Of its generator.
    """

    width: int
    batch: int
    depth: int
    image: tuple[int, int, int]
    image_batch: int
    steps: int
    recipe_steps: int
    points: tuple[int, int]
    record: tuple[int, int]
    channels: int


SIZES = {
    LARGE: Sizes(1024, 4096, 6, (3, 32, 32), 256, 100, 2000, (100_000, 1_000_000), (100_000, 10_000), 64),
    SMALL: Sizes(16, 32, 2, (1, 8, 8), 16, 3, 4, (2100, 3000), (6, 3), 4),
}


@dataclass(frozen=True)
class Setting:
    """The setting of a stage: device, sizes, deadline (by `time.monotonic`), folder and data."""

    device: torch.device
    sizes: Sizes
    deadline: float
    out: Path
    data: Path | None
    seed: int

    @property
    def minutes(self) -> float:
        """Minutes left, at least a few seconds."""
        return max(0.05, (self.deadline - time.monotonic()) / 60)


Case = Callable[[], dict[str, Any]]
"""Measures, and returns plain figures; `unfinished` among them where it is to be called again."""


# --- launches and tests ----------------------------------------------------------------------------------------------


class _Operations(TorchDispatchMode):
    """Counts what computes: no views, and no marks of the profiler."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name()
        if not (function.is_view or name.startswith(("aten::detach", "aten::_unsafe_view", "profiler"))):
            self.counted[name.partition(".")[0]] += 1
        return function(*args, **(kwargs or {}))


def _checks(setting: Setting) -> dict[str, Case]:
    return {"tests": partial(_tests, setting), "operations": partial(_operations, setting)}


def _tests(setting: Setting) -> dict[str, Any]:
    """The tests that only a GPU can pass, where they lie in the working folder."""
    file = Path("tests/test_gpu.py")
    if not file.exists():
        return {"tests": f"none: run the suite where {file} is"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 * setting.minutes)
        return {"status": done.returncode, "tests": done.stdout.strip().splitlines()[-1:]}
    return {"tests": "not done in time", "unfinished": True}


def _operations(setting: Setting) -> dict[str, Any]:
    """The operations that a step of the default digits critic sends to the device."""
    critic = ResNetCritic(64).to(setting.device)
    step = _ascent(critic, torch.randn(2, 128, 64, device=setting.device))
    for _ in range(2):
        step()
    with _Operations() as operations:
        step()
    return {"operations": operations.counted.total(), "of": dict(operations.counted.most_common())}


# --- step costs -------------------------------------------------------------------------------------------------------


def _ascent(critic: nn.Module, samples: Tensor) -> Callable[[], Tensor]:
    """The step of a critic on samples of both laws, shape (2, b, d)."""
    optimizer = torch.optim.Adam(parameter_groups(critic), fused=True)
    constrain_steps(optimizer, critic)
    step: Callable[[], Tensor] = partial(ascend, critic, optimizer, *samples)
    step.optimizer = optimizer  # type: ignore[attr-defined]
    return step


def _milliseconds(step: Callable[[], Any], setting: Setting) -> float:
    """The median time of a step, of several in a row, for the device to keep up with."""
    times = []
    for _ in range(5):
        _wait(setting)
        start = time.perf_counter()
        for _ in range(max(1, setting.sizes.steps // 5)):
            step()
        _wait(setting)
        times.append((time.perf_counter() - start) / max(1, setting.sizes.steps // 5))
    return 1e3 * median(times)


def _wait(setting: Setting) -> None:
    if setting.device.type == "cuda":
        torch.cuda.synchronize(setting.device)


def _steps(setting: Setting) -> dict[str, Case]:
    """Each critic against its unconstrained twin, as written and captured."""
    size = setting.sizes
    dim = math.prod(size.image)
    pairs: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], int, int]] = {
        "digits": (lambda: ResNetCritic(64), lambda: perceptron(64, 128), 64, 128),
        "wide": (
            lambda: ResNetCritic(size.width, width=size.width, depth=size.depth),
            lambda: perceptron(size.width, size.width), size.width, size.batch // 2,
        ),
        "images": (
            lambda: ConvolutionalCritic(size.image), lambda: convolutions(size.image), dim, size.image_batch // 2
        ),
    }  # fmt: skip
    return {name: partial(_step, setting, *pair) for name, pair in pairs.items()}


def _step(
    setting: Setting, critic: Callable[[], nn.Module], twin: Callable[[], nn.Module], dim: int, batch: int
) -> dict[str, Any]:
    found: dict[str, Any] = {"batch": 2 * batch}
    samples = torch.randn(2, batch, dim, device=setting.device)
    for name, make in (("critic", critic), ("twin", twin)):
        for captured in (False, True):
            torch.manual_seed(setting.seed)
            module = make().to(setting.device)
            step = _ascent(module, samples)
            if captured:
                moved = partial(moved_by, [module], [step.optimizer])  # type: ignore[attr-defined]
                taken = CapturedStep(step, moved, CAPTURES.get(setting.device.type))
                for _ in range(4):
                    taken()
                step = taken
                found[f"{name} replayed"] = taken.replayed > 0
            for _ in range(3):
                step()
            found[f"{name}{', captured' * captured}"] = _milliseconds(step, setting)
            if name == "critic":
                found[f"lipschitz{', captured' * captured}"] = certify(module).lipschitz
    found["ratio"] = found["critic"] / found["twin"]
    found["ratio, captured"] = found["critic, captured"] / found["twin, captured"]
    found["apart"] = _apart(setting, critic, samples)
    return found


def _apart(setting: Setting, critic: Callable[[], nn.Module], samples: Tensor) -> float:
    """The largest difference of weights after ten steps captured and ten as written, from one start and at one rate."""
    ends = []
    for capture in (None, CAPTURES.get(setting.device.type)):
        torch.manual_seed(setting.seed)
        module = critic().to(setting.device)
        step = _ascent(module, samples)
        moved = partial(moved_by, [module], [step.optimizer])  # type: ignore[attr-defined]
        moved()  # puts the rates on the device, for either
        taken = CapturedStep(step, moved, capture)
        for _ in range(10):
            taken()
        ends.append(torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))
    return float((ends[0] - ends[1]).abs().max())


# --- recipes ----------------------------------------------------------------------------------------------------------


def _recipes(setting: Setting) -> dict[str, Case]:
    """Steps and images a second of the recipes, as written and captured, with the share of time that the GPU works."""
    small = setting.sizes is SIZES[SMALL]
    names = ["digits"] if small else ["digits", "gaussians25"]
    names += ["mnist", "cifar10"] if setting.data is not None and not small else []
    cases: dict[str, Case] = {}
    for name in names:
        for captured in (False, True):
            arguments = [
                f"experiment={name}", f"device={setting.device}", f"training.steps={setting.sizes.recipe_steps}",
                "training.audit_refits=0", "training.audit_scores=false", "evaluation.fit_steps=0", "tracking=[]",
                f"training.audit_every={setting.sizes.recipe_steps}", "training.score=w1/upper",
                f"training.capture={str(captured).lower()}",
            ]  # fmt: skip
            if small:
                arguments += ["training.warmup_steps=0", "training.audit_size=20", "evaluation.size=20",
                              "evaluation.repeats=1", "training.log_every=2", "evaluation.classifier_steps=0",
                              "evaluation.features=null"]  # fmt: skip
            if name == "mnist":
                arguments += [f"data.root={setting.data}", "data.download=false"]
            if name == "cifar10":
                arguments += ["data=image_folder", f"data.path={_cifar_folder(setting.data)}"]
            cases[f"{name}{', captured' * captured}"] = partial(_recipe, setting, arguments, name, captured)
    return cases


def _recipe(setting: Setting, arguments: list[str], name: str, captured: bool) -> dict[str, Any]:
    directory = setting.out / "recipes" / f"{name}{'-captured' * captured}"
    watch = _Utilisation() if setting.device.type == "cuda" else None
    try:
        row = train_case(directory, arguments)
    finally:
        working = watch.stopped() if watch else None
    metrics = Run(directory).metrics
    rates = [record["perf/steps_per_second"] for record in metrics if "perf/steps_per_second" in record]
    images = [record["perf/samples_per_second"] for record in metrics if "perf/samples_per_second" in record]
    return {"command": row["command"], "steps_per_second": median(rates), "images_per_second": median(images),
            "utilisation": working}  # fmt: skip


class _Utilisation:
    """Asks the driver, once a second, for the share of time in which the GPU worked."""

    def __init__(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-l", "1"]
        self.process: subprocess.Popen[str] | None = None
        with suppress(OSError):
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def stopped(self) -> float | None:
        """The median of the busier half, in per cent, for building and scoring keep it waiting; None if not known."""
        if self.process is None:
            return None
        self.process.terminate()
        text, _ = self.process.communicate()
        shares = sorted(float(line) for line in text.split() if line.isdecimal())
        return median(shares[len(shares) // 2 :]) if shares else None


# --- certificates -----------------------------------------------------------------------------------------------------


def _certificates(setting: Setting) -> dict[str, Case]:
    """The proof of a critic on the device and on the CPU: equal, and how long it takes."""
    size = setting.sizes
    critics: dict[str, Callable[[], nn.Module]] = {
        "digits": lambda: ResNetCritic(64),
        "wide": lambda: ResNetCritic(size.width, width=size.width, depth=size.depth),
        "images": lambda: ConvolutionalCritic(size.image),
    }

    def case(make: Callable[[], nn.Module]) -> dict[str, Any]:
        critic = make().to(setting.device)
        start = time.perf_counter()
        there = certify(critic)
        seconds = time.perf_counter() - start
        return {"lipschitz": there.lipschitz, "seconds": seconds, "equal": there == certify(critic.cpu())}

    return {name: partial(case, make) for name, make in critics.items()}


# --- pricing ----------------------------------------------------------------------------------------------------------


def _pricing(dim: int, many: bool, width: float, setting: Setting) -> dict[str, Case]:
    """Gaussians whose interval is narrowed until it is as narrow as asked, relative to its upper end, or time is up."""

    def case() -> dict[str, Any]:
        rng = torch.Generator().manual_seed(setting.seed)
        n = setting.sizes.points[many]
        x, y = torch.randn(n, dim, generator=rng), 0.5 + 1.5 * torch.randn(n, dim, generator=rng)
        history: list[dict[str, Any]] = []
        start = time.monotonic()
        for found in narrow(x, y, device=setting.device, deadline=setting.deadline):
            lower, upper = found.transport.lower, found.transport.upper
            seconds = time.monotonic() - start
            history.append({"stage": found.stage, "lower": lower, "upper": upper, "seconds": seconds})
            if upper - lower <= width * upper or meet(lower, upper):
                break
        met = upper - lower <= width * upper or meet(lower, upper)
        return {"n": n, "dim": dim, **history[-1], "width": (upper - lower) / upper, "met": bool(met),
                "optimal": found.optimal, "history": history}  # fmt: skip

    return {"gaussians": case}


# --- the training of record -------------------------------------------------------------------------------------------


class _PenalizedTwin(PenalizedCritic):
    """The convolutions of the certified critic without constraints, and the penalty in their place."""

    def __init__(self, image: tuple[int, int, int]) -> None:
        super().__init__(math.prod(image), width=1, depth=1, penalty_weight=PENALTY)
        for name in [name for name, _ in self.named_children() if name != "flatten"]:
            delattr(self, name)
        self.layers = convolutions(image)[:-1]
        self.squeeze = Squeeze()

    @classmethod
    def examples(cls) -> Iterator[Critic]:
        yield cls((3, 32, 32))


def _cifar_folder(root: Path | None) -> Path | None:
    return None if root is None else root / "cifar10_jpeg" / "train"


def _images(setting: Setting) -> FiniteSource:
    """CIFAR-10: the images in folders, `cifar10_jpeg/train` and `cifar10_jpeg/test`, or torchvision's files; noise of
    the same shape where sizes are small."""
    if setting.sizes is SIZES[SMALL]:
        return FakeImages(*setting.sizes.image, count=128, test_size=32)
    if setting.data is None:
        raise InputError("This stage needs the folder of CIFAR-10. Give it as \"overrides=['data=DIR']\".")
    folder = setting.data / "cifar10_jpeg"
    if folder.is_dir():
        return ImageFolder(str(folder / "train"), test_path=str(folder / "test"))
    return CIFAR10(str(setting.data), download=False)


def _record(certified: bool, setting: Setting) -> dict[str, Case]:
    return {"training": partial(_piece, certified, setting)}


def _piece(certified: bool, setting: Setting) -> dict[str, Any]:
    """A piece of the training: from where the last one stopped, until time is up or all steps are done.

    One critic step a generator step, batch 128, both by Adam; scores at every audit, which the run's records keep.
    """
    steps, every = setting.sizes.record
    folder = setting.out / ("record-certified" if certified else "record-penalty")
    torch.manual_seed(setting.seed)
    source = _images(setting).to(setting.device)
    assert source.image_shape is not None
    generator = ResNetGenerator(
        source.image_shape, low=source.low, high=source.high, latent_dim=128, channels=setting.sizes.channels
    ).to(setting.device)
    critic: Critic = ConvolutionalCritic(source.image_shape) if certified else _PenalizedTwin(source.image_shape)
    critic = critic.to(setting.device)
    cuda = setting.device.type == "cuda"

    def stop(record: Record) -> None:
        if time.monotonic() > setting.deadline:
            signal.raise_signal(signal.SIGINT)  # which saves first

    start, before = time.monotonic(), Run(folder).step if (folder / "checkpoint.pt").exists() else 0
    with suppress(KeyboardInterrupt):
        train(
            source, generator, critic, out=folder, resume="auto", steps=steps, batch_size=128,
            critic_steps=1, warmup_steps=0, critic_schedule="linear", generator_schedule="linear",
            precision="bfloat16" if cuda else "float32", capture=cuda and certified, ema_half_life=5000.0,
            log_every=min(100, every), audit_every=every, audit_refits=0, audit_size=min(500, len(source.test)),
            critic_optimizer=torch.optim.Adam(
                parameter_groups(critic, 0.03 if certified else 0.02), betas=(0.0, 0.9), fused=True
            ),
            generator_optimizer=torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.0, 0.9), fused=True),
            evaluation=Evaluation(size=min(2000, len(source.test)), fit_steps=0, repeats=2),
            seed=setting.seed, threads=None, tracking=(), callbacks=(stop,),
        )  # fmt: skip
    run = Run(folder)
    done = run.status["state"] == "finished"
    scored = [record for record in run.metrics if any(tag.startswith("eval/") for tag in record)]
    step = run.status["step"]
    rate = (step - before) / (time.monotonic() - start)
    row = {"step": step, "of": steps, "steps_per_second": rate, "scores": scored}
    return {**row, "summary": run.summary} if done else {**row, "unfinished": True}


STAGES: dict[str, Callable[[Setting], dict[str, Case]]] = {
    "checks": _checks,
    "steps": _steps,
    "recipes": _recipes,
    "certificates": _certificates,
    "pricing_plane": partial(_pricing, 2, False, 0.0),
    "pricing_16": partial(_pricing, 16, False, 0.0),
    "pricing_million": partial(_pricing, 2, True, 0.01),
    "record_certified": partial(_record, True),
    "record_penalty": partial(_record, False),
}
"""By name, in the order in which they are run."""


def measure(
    seeds: list[int], overrides: list[str], out: Path, stage: str | None = None, minutes: float | None = None
) -> str:
    """Runs one stage, or all in turn, each case once; continues where it stopped.

    Arguments:
        seeds: One.
        overrides: `device=cpu`, `sizes=small` to try it out, `data=DIR`, the folder of MNIST and CIFAR-10.
        out: The suite's folder. Its `results.json` is written after every case, and kept by later stages.
        stage: One of :data:`STAGES`; all by default.
        minutes: After which no case is begun, and long ones stop where they can go on.
    """
    known: dict[str, Callable[[str], Any]] = {"device": str, "sizes": some_of(SIZES, "sizes"), "data": Path}
    given = parse_overrides(overrides, known)
    if len(seeds) != 1:
        raise InputError(f"suite=gpu takes one seed, not {seeds}.")
    if minutes is not None and not 0 < minutes < math.inf:
        raise InputError(f"minutes must be positive and finite, not {minutes}.")
    names = list(STAGES) if stage is None else [check_choice(stage, list(STAGES), "stage")]
    setting = Setting(
        find_device(given.get("device", "auto")), SIZES[given.get("sizes", [LARGE])[0]],
        time.monotonic() + 60 * (MINUTES if minutes is None else minutes), out, given.get("data"), seeds[0],
    )  # fmt: skip
    results = out / "results.json"
    about: dict[str, Any] = {"device": setting.device.type, "sizes": asdict(setting.sizes)}
    about["sizes"] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in about["sizes"].items()
    }
    stages: dict[str, dict[str, Any]] = {}
    if results.exists():
        stored = read_json(results)
        if any(stored.get(key) != value for key, value in about.items()):
            raise InputError(f"{results} holds results of another device or other sizes. Choose another out=DIR.")
        stages = stored["stages"]

    def write() -> None:
        write_results("gpu", seeds, out, overrides, **about, stages=stages)

    write()
    for name in names:
        rows = stages.setdefault(name, {})
        for case, measured in STAGES[name](setting).items():
            if case in rows and not rows[case].get("unfinished"):
                continue
            if time.monotonic() > setting.deadline:
                break
            print(f"{name}: {case}", file=sys.stderr, flush=True)
            start = time.monotonic()
            rows[case] = {**measured(), "took": time.monotonic() - start}
            write()
    table = _table(stages)
    how = f"On {setting.device}. Each stage in turn; times by the clock, with the device waited for."
    write_page(out, title="What a GPU makes of it", how=how, parts=[table, _left_out(stages)])
    return table


def _table(stages: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    lines = []
    for stage, rows in stages.items():
        for case, row in rows.items():
            plain = [f"{name} {_short(value)}" for name, value in row.items()
                     if isinstance(value, bool | int | float) and name != "took"]  # fmt: skip
            lines.append([stage, case, ", ".join(plain), f"{row['took']:.0f}"])
    return markdown_table(["stage", "case", "figures", "seconds"], lines) + "\n"


def _short(value: float) -> str:
    return str(value) if isinstance(value, bool | int) else f"{value:.4g}"


def _left_out(stages: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """What is not measured yet, in words."""
    left = [name for name in STAGES if not stages.get(name)]
    begun = [
        f"{stage}, {case}" for stage, rows in stages.items() for case, row in rows.items() if row.get("unfinished")
    ]
    text = f"**Not measured yet:** {', '.join(left)}." if left else ""
    return f"{text} **To go on:** {'; '.join(begun)}.".strip() if begun else text
