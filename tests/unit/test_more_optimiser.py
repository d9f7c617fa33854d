"""AdamW and its schedule against torch's own."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from morebench.models.more.clusters import k_means
from morebench.models.more.optimiser import AdamW, one_cycle


@pytest.mark.parametrize("total", [7, 101, 301])
def test_the_schedule_is_that_of_torch(total):
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.AdamW([parameter], 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, 2e-3, total_steps=total)
    for step in range(total - 1):
        group = theirs.param_groups[0]
        rate, momentum = one_cycle(step, total, 2e-3)
        assert rate == pytest.approx(group["lr"], rel=1e-9)
        assert momentum == pytest.approx(group["betas"][0], rel=1e-9)
        theirs.step()
        schedule.step()


def test_training_is_that_of_torch():
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    unused = torch.nn.Parameter(torch.ones(3))  # without a gradient: stays as it is
    theirs = copy.deepcopy(ours)
    x, y = torch.randn(64, 5), torch.randn(64, 2)
    one = AdamW([*ours.parameters(), unused], 1e-2, 1e-2, 41)
    two = torch.optim.AdamW(theirs.parameters(), 1e-2, weight_decay=1e-2, foreach=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(two, 1e-2, total_steps=41)
    for _ in range(40):
        one.zero_grad()
        ((ours(x) - y) ** 2).mean().backward()
        one.step()
        two.zero_grad()
        ((theirs(x) - y) ** 2).mean().backward()
        two.step()
        schedule.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert (unused == 1).all()


def test_the_compiler_is_not_imported():
    code = (
        "import sys, torch\n"
        "from morebench.models.more.optimiser import AdamW\n"
        "p = torch.nn.Parameter(torch.ones(2)); a = AdamW([p], 1e-2, 0.0, 5)\n"
        "(p ** 2).sum().backward(); a.step(); assert (p < 1).all()\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_k_means_finds_what_is_apart():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, 400)
    x = 20 * np.eye(4)[kind] + rng.normal(size=(400, 4))
    centres, found = k_means(x, 4, seed=1)
    assert all(len(set(found[kind == k])) == 1 for k in range(4))
    assert len(set(found)) == 4
    for c in range(4):
        np.testing.assert_allclose(centres[c], x[found == c].mean(0), atol=1e-9)
    np.testing.assert_array_equal(found, k_means(x, 4, seed=1)[1])


def test_clusters_of_equal_rows_are_no_error():
    centres, found = k_means(np.ones((12, 3)), 5, seed=0)
    assert centres.shape == (5, 3) and np.isfinite(centres).all() and len(found) == 12
