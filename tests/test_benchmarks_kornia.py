"""benchmarks/kornia_calls.py: what it times is kornia, with and without our kernels."""

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerated import X, exchange_undone, is_ours

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import stn_cuda
from benchmarks import kornia_calls, timing

EFFORT = timing.Effort(1, 0.0, 1e-4)


@pytest.fixture(autouse=True)
def _undone():
    with exchange_undone():
        yield


@pytest.mark.quick
def test_tables_and_file(tmp_path, capsys):
    path = tmp_path / "deep" / "kornia.json"
    arguments = ["--repeats=1", "--min-time=0", "--filter=remap 64x1", f"--out={path}"]
    assert kornia_calls.main(arguments) == 0
    text = capsys.readouterr().out
    results = json.loads(path.read_text())
    rows = [(row["call"], row["direction"]) for row in results["rows"]]
    assert rows == [("remap 64x1x28x28", "forward"), ("remap 64x1x28x28", "backward")]
    for row in results["rows"]:
        assert row["ratio"]["median"] > 0 and kornia_calls.row_text(row) in text
    assert {cost["call"] for cost in results["costs"]} >= {
        "grid_sample of one pixel, accelerated",
        "torch.add of one pixel, elsewhere",
    }
    assert results["environment"]["kornia"] and results["threads"] == 1


@pytest.mark.quick
@pytest.mark.parametrize("direction", ("forward", "backward"))
@pytest.mark.parametrize("call", kornia_calls.CALLS)
def test_calls(call, direction):
    """Images, and where wanted their gradient and that of what warps them."""
    shape = (2, 3, 9, 12)
    results = kornia_calls.build_call(call, shape, direction)()
    if direction == "forward":
        assert results.shape == shape
        return
    warps = {"warp_affine": [(2, 2, 3)], "warp_perspective": [(2, 3, 3)]}
    expected = [shape, shape, *warps.get(call, [(2, 9, 12)] * 2)]
    assert [tuple(result.shape) for result in results] == expected
    assert all(result.abs().sum() > 0 for result in results)


@pytest.mark.quick
def test_one_of_the_two_is_accelerated():
    seen = []

    def work():
        seen.append(is_ours())
        return X

    row = kornia_calls.measure("a call", "forward", work, EFFORT)
    assert set(row["median_s"]) == {"torch", "stn_cuda"}
    assert {False, True} == set(seen) and not is_ours()


@pytest.mark.quick
def test_elsewhere_is_not_here():
    with kornia_calls.accelerated_elsewhere():
        assert torch.grid_sampler is stn_cuda.acceleration.grid_sampler
        assert not is_ours()


@pytest.mark.quick
def test_a_wrong_result_is_not_timed(monkeypatch):
    monkeypatch.setattr(stn_cuda.acceleration, "_sample_kernel", lambda x, *_: 1.1 * x)
    grid = F.affine_grid(torch.eye(2, 3).expand(2, 2, 3), X.shape, align_corners=False)
    with pytest.raises(RuntimeError, match="accelerated, the results are off by 10.0%"):
        kornia_calls.measure(
            "a call", "forward", lambda: F.grid_sample(X, grid, align_corners=False), EFFORT
        )
