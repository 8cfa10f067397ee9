"""The suite of step costs: twins of the critics' shapes, every part of a step measured, memory counted once."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from wgan_lip.benchmarks import step_cost
from wgan_lip.critics import ConvolutionalCritic, ResNetCritic
from wgan_lip.lipschitz.certificates import certify


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(step_cost, "WIDTHS", {"cpu": (8,), "cuda": ()})
    monkeypatch.setattr(step_cost, "DEPTH", 2)
    monkeypatch.setattr(step_cost, "BATCH", 6)
    monkeypatch.setattr(step_cost, "IMAGE", (1, 8, 8))
    monkeypatch.setattr(step_cost, "WARM", 1)
    monkeypatch.setattr(step_cost, "ROUNDS", 4)


def test_every_critic_has_a_row_and_a_bar(small, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    table = step_cost.measure([0, 2], tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["command"] == "wgan-lip benchmark suite=step_cost seeds=[0,2]"
    assert {"torch", "processor"} <= results["machine"].keys()
    rows = results["rows"]
    names = {"residual", "residual, cones", "sorting, pairs", "sorting, full", "fixed width", "convolutional"}
    assert names <= {row["critic"] for row in rows} and {row["seed"] for row in rows} == {0, 2}
    for row in rows:
        assert set(row["parts"]) == set(step_cost.PARTS) and min(row["parts"].values()) > 0
        assert row["ratio"] == pytest.approx(row["milliseconds"] / row["twin_milliseconds"])
        assert row["quartiles"][0] <= row["quartiles"][1]
    assert len(re.findall(r"^\|", table, re.MULTILINE)) == 2 + len(rows)
    assert (tmp_path / "step_cost.png").read_bytes().startswith(b"\x89PNG")


def test_dense_critics_compile_to_one_graph(small):
    for name, (critic, _, dim) in step_cost._pairs(8).items():
        if name in ("residual", "sorting, pairs", "sorting, full", "fixed width"):
            assert step_cost._graph_break(critic(), dim) is None, name


def test_a_graph_break_is_told(small):
    class Breaks(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    assert step_cost._graph_break(Breaks(), 3)


def test_a_step_trains_and_keeps_the_constraint(small):
    steps = step_cost._Steps(ResNetCritic(8, width=8, depth=2), 8, "cpu")
    before = [p.detach().clone() for p in steps.module.parameters()]
    assert len(steps()) == len(step_cost.PARTS)
    assert any(not torch.equal(a, b) for a, b in zip(before, steps.module.parameters()))
    assert certify(steps.module).lipschitz <= 1


def test_memory_is_counted_once_a_storage(small):
    """One linear map keeps its input; its weight and bias count four times: value, gradient, two moments."""
    module = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))
    floats = 4 * (5 + 1) + 6 * 5
    assert step_cost._Steps(module, 5, "cpu").bytes() == 4 * floats


def test_the_convolutional_twin_has_the_critics_maps(small):
    critic, twin = ConvolutionalCritic(step_cost.IMAGE), step_cost.convolutions(step_cost.IMAGE)
    assert twin(torch.zeros(3, 64)).shape == (3,)
    shapes = {tuple(p.shape) for p in critic.parameters() if p.ndim > 1}
    assert shapes <= {tuple(p.shape) for p in twin.parameters()}
