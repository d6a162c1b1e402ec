"""What setup.py decides to build, and the sentences with which it refuses."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

ROOT = Path(__file__).resolve().parent.parent
NVCC = Path("/usr/local/cuda/bin/nvcc")
CPU_TORCH = ("2.13.0+cpu", None)
CUDA_TORCH = ("2.14.1+cu130", "13.0")


@pytest.fixture(scope="module")
def build():
    """setup.py as a module; it sets nothing up, since its name is not __main__."""
    spec = importlib.util.spec_from_file_location("stn_cuda_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal(function, *arguments):
    """The sentence that a function ends the build with."""
    with pytest.raises(SystemExit) as stopped:
        function(*arguments)
    sentence = str(stopped.value)
    assert sentence.startswith("stn_cuda: ")
    assert "\n" not in sentence
    return sentence


def program(folder, name, says=""):
    """An executable that prints a line."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("value", ["auto", "cpu", "cuda"])
def test_requested_build(build, value):
    assert build.requested_build({"STN_CUDA_BUILD": value}) == value


@pytest.mark.parametrize("environ", [{}, {"STN_CUDA_BUILD": ""}])
def test_requested_build_defaults_to_auto(build, environ):
    assert build.requested_build(environ) == "auto"


def test_unknown_build(build):
    sentence = refusal(build.requested_build, {"STN_CUDA_BUILD": "gpu"})
    assert "STN_CUDA_BUILD must be one of auto, cpu, cuda, got 'gpu'" in sentence


@pytest.mark.parametrize(
    ("request_", "torch", "nvcc", "cuda", "reason"),
    [
        ("auto", CPU_TORCH, None, False, "torch 2.13.0+cpu is a CPU build"),
        ("auto", CPU_TORCH, "13.0", False, "torch 2.13.0+cpu is a CPU build"),
        ("auto", CUDA_TORCH, None, False, "no nvcc in CUDA_HOME or on PATH"),
        ("auto", CUDA_TORCH, "13.0", True, "torch 2.14.1+cu130, nvcc 13.0 at"),
        ("auto", CUDA_TORCH, "13.2", True, "nvcc 13.2"),
        ("cpu", CUDA_TORCH, "13.0", False, "STN_CUDA_BUILD=cpu"),
        ("cpu", CUDA_TORCH, "12.6", False, "STN_CUDA_BUILD=cpu"),
        ("cuda", CUDA_TORCH, "13.0", True, "torch 2.14.1+cu130"),
    ],
)
def test_decision(build, request_, torch, nvcc, cuda, reason):
    decision, why = build.decide(request_, *torch, nvcc and NVCC, nvcc)
    assert decision is cuda
    assert reason in why


def test_cuda_needs_a_cuda_torch(build):
    sentence = refusal(build.decide, "cuda", *CPU_TORCH, NVCC, "13.0")
    assert "torch 2.13.0+cpu is a CPU build" in sentence
    assert "install one" in sentence


def test_cuda_needs_nvcc(build):
    sentence = refusal(build.decide, "cuda", *CUDA_TORCH, None, None)
    assert "install the CUDA 13.0 toolkit" in sentence


@pytest.mark.parametrize("request_", ["auto", "cuda"])
def test_cuda_needs_nvcc_of_torchs_major_version(build, request_):
    # Not even auto goes on without CUDA: the user has both parts, and would get neither.
    sentence = refusal(build.decide, request_, *CUDA_TORCH, NVCC, "12.6")
    assert "needs nvcc of CUDA 13" in sentence
    assert "is of CUDA 12.6" in sentence
    assert "STN_CUDA_BUILD=cpu" in sentence


@pytest.mark.parametrize("version", ["2.11.0", "2.14.1+cu130", "2.15.0a0+git1234", "3.0.0"])
def test_torch_new_enough(build, version):
    build.check_torch_version(version)


@pytest.mark.parametrize("version", ["2.9.1+cpu", "2.10.0", "1.13.1"])
def test_torch_too_old(build, version):
    sentence = refusal(build.check_torch_version, version)
    assert f"torch must be 2.11 or later, got {version}" in sentence


def test_missing_torch(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    sentence = refusal(build.import_torch)
    assert "--no-build-isolation" in sentence


def test_compiler(build, tmp_path):
    program(tmp_path, "g++")
    environ = {"PATH": str(tmp_path)}
    assert build.find_compiler(environ) == "g++"
    program(tmp_path, "mine")
    assert build.find_compiler({**environ, "CXX": "mine -m64"}) == "mine -m64"
    assert "looked for absent" in refusal(build.find_compiler, {**environ, "CXX": "absent"})


def test_missing_compiler(build, tmp_path):
    sentence = refusal(build.find_compiler, {"PATH": str(tmp_path)})
    assert "apt install g++" in sentence


def test_missing_python_headers(build, tmp_path):
    assert "apt install python3-dev" in refusal(build.check_python_headers, tmp_path)
    (tmp_path / "Python.h").touch()
    build.check_python_headers(tmp_path)


def test_nvcc_of_cuda_home_comes_first(build, tmp_path):
    on_path = program(tmp_path / "path", "nvcc")
    of_home = program(tmp_path / "home/bin", "nvcc")
    environ = {"PATH": str(on_path.parent)}
    assert build.find_nvcc(environ) == on_path
    assert build.find_nvcc({**environ, "CUDA_HOME": str(tmp_path / "home")}) == of_home
    assert build.find_nvcc({**environ, "CUDA_HOME": str(tmp_path / "absent")}) == on_path


def test_nvcc_release(build):
    text = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n"
    assert build.nvcc_release(text) == "13.0"
    assert "tells no CUDA version" in refusal(build.nvcc_release, "")


def test_toolkit_behind_a_wrapper(build, tmp_path):
    """nvcc on PATH is often a link or a script far from the toolkit's headers."""
    home = tmp_path / "cuda-13.0"
    nvcc = program(home / "bin", "nvcc", says=f"#$ _HERE_={home}/bin")
    (home / "include").mkdir()
    (home / "include/cuda_runtime.h").touch()
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin/nvcc"
    wrapper.write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "links").mkdir()
    (tmp_path / "links/nvcc").symlink_to(nvcc)
    for found in (nvcc, wrapper, tmp_path / "links/nvcc"):
        assert build.toolkit_home(found) == home


@pytest.mark.parametrize(
    ("known", "names"),
    [
        ("compute_75 compute_80 compute_90 compute_100 compute_120", "7.5;8.0;9.0;10.0;12.0+PTX"),
        ("compute_50\ncompute_75\ncompute_80\ncompute_86\ncompute_90\n", "7.5;8.0;9.0+PTX"),
        ("compute_100 compute_120 compute_130", "10.0;12.0+PTX"),
        ("compute_20", None),
    ],
)
def test_default_architectures(build, known, names):
    assert build.default_architectures(known) == names


def test_built_architectures(build):
    flags = [
        "-gencode=arch=compute_100,code=sm_100",
        "-gencode=arch=compute_90,code=compute_90",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_80,code=sm_80",
    ]
    assert build.built_architectures(flags) == ["sm_80", "sm_90", "sm_100", "compute_90"]
    assert build.built_architectures([]) == []


def test_sources(build):
    cpu, cuda = (build.sources(cuda=cuda, walk=False) for cuda in (False, True))
    assert cpu
    assert all((ROOT / source).is_file() for source in cuda)
    assert not any(source.startswith("csrc/cuda") for source in cpu)
    assert set(cpu) <= set(cuda)
    for cuda in (False, True):
        walked = build.sources(cuda=cuda, walk=True)
        assert set(walked) - set(build.sources(cuda=cuda, walk=False)) == {build.WALK}
        longest = [source for source in build.LONGEST if source in walked]
        assert walked[: len(longest)] == longest
        assert walked[len(longest) :] == sorted(set(walked) - set(longest))
    assert set(build.LONGEST) <= set(walked)


def test_every_source_is_compiled_once(build):
    """By itself, or within one of csrc/units."""
    compiled = [ROOT / source for source in build.sources(cuda=True, walk=True)]
    for unit in [source for source in compiled if source.parent.name == "units"]:
        within = re.findall(r'#include "(.+\.cpp)"', unit.read_text())
        assert within, unit
        compiled += [(unit.parent / name).resolve() for name in within]
    sources = [p for kind in ("cpp", "cu") for p in (ROOT / "csrc").rglob(f"*.{kind}")]
    assert sorted(compiled) == sorted(sources)


@pytest.mark.parametrize(("value", "walk"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_requested_walk(build, value, walk):
    environ = {} if value is None else {"STN_CUDA_WALK": value}
    assert build.requested_walk(environ) is walk


@pytest.mark.parametrize(("value", "cpu"), [(None, "all"), ("", "all"), ("baseline", "baseline")])
def test_requested_cpu(build, value, cpu):
    assert build.requested_cpu({} if value is None else {"STN_CUDA_CPU": value}) == cpu


def test_unknown_cpu(build):
    sentence = refusal(build.requested_cpu, {"STN_CUDA_CPU": "avx2"})
    assert "STN_CUDA_CPU must be one of all, baseline, got 'avx2'" in sentence


def test_unknown_walk(build):
    sentence = refusal(build.requested_walk, {"STN_CUDA_WALK": "yes"})
    assert "STN_CUDA_WALK must be 0 or 1, got 'yes'" in sentence


def test_objects_do_not_overwrite_each_other(build):
    """setuptools names an object after its source without the ending: a.cpp and a.cu clash."""
    stems = [os.path.splitext(source)[0] for source in build.sources(cuda=True, walk=True)]
    assert len(stems) == len(set(stems))


def test_config_is_a_module_of_the_facts(build, tmp_path):
    facts = {"VERSION": "0.1.0", "CUDA_VERSION": None, "CUDA_ARCHITECTURES": ["sm_90"]}
    path = tmp_path / "package/_build_config.py"
    for facts["VERSION"] in ("0.1.0", "0.2.0"):  # the second replaces the first
        build.write_config(path, facts)
        names = {}
        exec(path.read_text(), names)
        assert {name: names[name] for name in facts} == facts
    assert os.listdir(path.parent) == ["_build_config.py"]


def test_refusal_reaches_the_user_without_a_traceback():
    environ = {**os.environ, "STN_CUDA_BUILD": "gpu"}
    command = [sys.executable, "setup.py", "--version"]
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == ("stn_cuda: STN_CUDA_BUILD must be one of auto, cpu, cuda, got 'gpu'\n")
