"""The worked examples, on images of the tests' own."""

import importlib.util
from pathlib import Path

import matplotlib.image
import pytest
import torch
from cases import image

FOLDER = Path(__file__).resolve().parent.parent / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.quick
def test_photographs(tmp_path, capsys):
    photographs = example("photographs")
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    colour, grey = image((3, 60, 50)).sigmoid(), image((90, 200)).sigmoid()
    matplotlib.image.imsave(paths[0], colour.movedim(0, -1).numpy())
    matplotlib.image.imsave(paths[1], grey.numpy(), cmap="gray")
    out = tmp_path / "photographs.png"
    lattice = tmp_path / "lattice.png"
    arguments = [*map(str, paths), "--out", str(out), "--lattice", str(lattice)]
    assert photographs.main(arguments) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 7 and told[-2:] == [str(out), str(lattice)]
    assert matplotlib.image.imread(lattice).shape[1] == 540
    # In float64: some roundings of coordinates of up to 200 pixels, times the steepest edge, 1.
    images = torch.stack([photographs.load(path) for path in paths])
    for name, (warped, off) in photographs.compare(images).items():
        assert off < 1e-11, name
        assert (torch.equal(warped, images)) == (name == "as it is")
    picture = matplotlib.image.imread(out)
    assert picture.shape[:2] == (2 * 154 + 4, 5 * 204 + 4)
