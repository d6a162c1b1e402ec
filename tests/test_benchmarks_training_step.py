"""benchmarks/training_step.py: what it times is a step of the tutorial network, in four forms."""

import json
import sys
from pathlib import Path

import pytest
import torch

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import training_step
from stn_cuda.tutorial import TutorialNet

STEPS = ["stn_cuda, eager", "stn_cuda, compiled", "torch, eager", "torch, compiled"]


@pytest.mark.slow
def test_table_and_file(tmp_path, capsys, threads):
    threads(1)
    path = tmp_path / "deep" / "step.json"
    assert training_step.main(["--batch=3", "--repeats=1", "--min-time=0", f"--out={path}"]) == 0
    text = capsys.readouterr().out
    results = json.loads(path.read_text())
    assert [row["step"] for row in results["rows"]] == STEPS
    assert results["batch"] == 3 and results["threads"] == 1 and results["environment"]["torch"]
    assert results["rows"][0]["ratio"]["median"] == 1
    for row in results["rows"]:
        assert row["median_s"] > 0 and training_step.row_text(row) in text


@pytest.mark.quick
def test_a_step_reaches_all_weights():
    net = TutorialNet().eval()
    with torch.no_grad():
        net.transformer.localization[-1].weight.normal_(std=0.01)
    images, labels = torch.rand(4, 1, 28, 28), torch.arange(4)
    grads = training_step.make_step(net, "eager", images, labels)()
    assert [g.shape for g in grads] == [p.shape for p in net.parameters()]
    assert all(g.abs().max() > 0 for g in grads)


@pytest.mark.quick
def test_wrong_gradients_are_not_timed():
    right = [torch.ones(3)]
    assert training_step.check("ours", right, None) is right
    assert training_step.check("theirs", [right[0] + 1e-6], right) is right
    with pytest.raises(RuntimeError, match="theirs: the gradients are off by 1.0%"):
        training_step.check("theirs", [right[0] + torch.tensor([0.0, 0.01, 0.0])], right)
