"""Loading the compiled module: what build_info tells, and how a wrong build is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stn_cuda

pytestmark = pytest.mark.quick

PACKAGE = Path(stn_cuda.__file__).parent


def python(code, folder, *options, **environ):
    """Run code in a Python of its own, started in a folder."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


def import_error(result):
    """The message of the ImportError that ended a run."""
    assert result.returncode == 1, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: "), result.stderr
    return last.removeprefix("ImportError: ")


@pytest.fixture
def unbuilt(tmp_path):
    """A folder with stn_cuda's loader as a package, but nothing compiled, and a torch 2.13.0."""
    package = tmp_path / "stn_cuda"
    package.mkdir()
    (package / "__init__.py").write_text("import stn_cuda._extension\n")
    for name in ("_extension.py", "_version.py"):
        shutil.copy(PACKAGE / name, package)
    (tmp_path / "torch.py").write_text("__version__ = '2.13.0+cpu'\n")
    return tmp_path


def unbuilt_import(folder):
    """The error of `import stn_cuda` in the fixture's folder."""
    # -S: without installed packages, among them an editable stn_cuda that fills in what is missing.
    return import_error(python("import stn_cuda", folder, "-S"))


def config(torch_version="2.13.0+cpu", version=stn_cuda.__version__):
    return f"VERSION = '{version}'\nTORCH_VERSION = '{torch_version}'\n"


def test_build_info():
    info = stn_cuda.build_info()
    assert list(info) == ["version", "torch", "cuda", "cuda_architectures", "cpu_isa", "threads"]
    assert info["version"] == stn_cuda.__version__
    assert info["torch"] == str(torch.__version__)
    assert info["cpu_isa"] in ("baseline", "avx2", "avx512")
    assert (info["cuda"] is None) == (info["cuda_architectures"] == [])
    assert all(name.startswith(("sm_", "compute_")) for name in info["cuda_architectures"])


def test_build_info_cannot_be_changed_from_outside():
    stn_cuda.build_info()["cuda_architectures"].append("sm_00")
    assert "sm_00" not in stn_cuda.build_info()["cuda_architectures"]


def test_build_info_counts_torchs_threads(threads):
    for count in (1, 2):
        threads(count)
        assert stn_cuda.build_info()["threads"] == count


@pytest.mark.parametrize("built_against", ["2.14.1+cu130", "2.13.0+cu130", "2.13.0"])
def test_another_torch_is_refused(unbuilt, built_against):
    (unbuilt / "stn_cuda/_build_config.py").write_text(config(torch_version=built_against))
    # Loading it is what must not happen.
    (unbuilt / "stn_cuda/_C.py").write_text("raise SystemExit('loaded')\n")
    message = unbuilt_import(unbuilt)
    assert f"built against torch {built_against}, but torch 2.13.0+cpu is running" in message
    assert "pip install --no-build-isolation --force-reinstall --no-deps ." in message


def test_module_of_another_version_is_refused(unbuilt):
    (unbuilt / "stn_cuda/_build_config.py").write_text(config(version="0.0.9"))
    message = unbuilt_import(unbuilt)
    assert f"is of version 0.0.9, but its Python code of {stn_cuda.__version__}" in message


@pytest.mark.parametrize("configured", [False, True])
def test_missing_module(unbuilt, configured):
    if configured:  # as another Python's build leaves it
        (unbuilt / "stn_cuda/_build_config.py").write_text(config())
    message = unbuilt_import(unbuilt)
    assert "has no compiled module" in message
    assert f"pip install --no-build-isolation -e .` in {unbuilt}" in message
    assert "start it in another folder" in message


def test_other_import_errors_are_not_hidden(unbuilt):
    (unbuilt / "stn_cuda/_build_config.py").write_text(config())
    (unbuilt / "stn_cuda/_C.py").write_text("raise ImportError('undefined symbol: x')\n")
    assert unbuilt_import(unbuilt) == "undefined symbol: x"


def test_what_the_module_raises_is_told(unbuilt):
    (unbuilt / "stn_cuda/_build_config.py").write_text(config())
    failure = "raise ImportError('initialization failed') from RuntimeError('X must be 1, got 2')\n"
    (unbuilt / "stn_cuda/_C.py").write_text(failure)
    assert unbuilt_import(unbuilt) == "X must be 1, got 2"


ISA = "import stn_cuda; print(stn_cuda.build_info()['cpu_isa'])"


def test_isa_can_be_forced():
    result = python(ISA, PACKAGE.parent, STN_CUDA_ISA="baseline")
    assert result.stdout == "baseline\n", result.stderr


def test_unknown_isa():
    message = import_error(python(ISA, PACKAGE.parent, STN_CUDA_ISA="sse9"))
    assert "STN_CUDA_ISA must be" in message
    assert "baseline" in message
    assert "got 'sse9'" in message


GATHERS = "from stn_cuda._extension import _C; print(_C.cpu_gathers(), _C.cpu_inserts())"


def test_gathers_can_be_forced():
    for gathers, inserts in (("0", "1"), ("2d", "0"), ("rest", "1"), ("pairs", "1"), ("1", "0")):
        forced = {"STN_CUDA_GATHER": gathers, "STN_CUDA_INSERT": inserts}
        result = python(GATHERS, PACKAGE.parent, **forced)
        assert result.stdout == f"{gathers} {inserts == '1'}\n", result.stderr


@pytest.mark.parametrize("name", ("STN_CUDA_GATHER", "STN_CUDA_INSERT"))
def test_unknown_gathers(name):
    result = python(GATHERS, PACKAGE.parent, **{name: "yes"})
    assert result.returncode == 1
    assert f"{name} must be 0" in result.stderr
    assert "got 'yes'" in result.stderr


def test_the_processor_decides_how_pixels_are_gathered():
    """Not the moment: what two processes compute on one machine has the same bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        pytest.skip("no /proc/cpuinfo to ask for the processor's maker")
    amd = any(line.startswith("vendor_id") and "AuthenticAMD" in line for line in lines)
    result = python(GATHERS, PACKAGE.parent, STN_CUDA_GATHER="", STN_CUDA_INSERT="")
    gathers, inserts = result.stdout.split()
    assert inserts == str(amd), result.stderr
    assert amd or gathers not in ("rest", "pairs")
