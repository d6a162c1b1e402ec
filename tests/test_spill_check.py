"""What .ci/check_spills.py reads out of the log of a build, and what it refuses."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

SCRIPT = Path(__file__).resolve().parent.parent / ".ci/check_spills.py"

SOURCE = """
// Not a struct CommentKernel {};
template <class Chosen, int N>
struct GradWarpKernel {
  struct Shared {};
};
template <class Element, class Sums>
struct RoundKernel {};
"""

GRAD_WARP = (
    "_ZN8stn_cuda4cuda6device13device_kernelINS1_14GradWarpKernelINS1_6ChoiceINS_8BFloat16ELi2EiNS_"
    "6device9AffineMapIfLi2EEELi2EEELi8EEEEEvNT_6LaunchE"
)
ROUND = (
    "_ZN8stn_cuda4cuda6device13device_kernelINS1_11RoundKernelINS_4HalfENS1_9FloatSumsIfEEEEEEvNT_"
    "6LaunchE"
)
# Paragraphs of nvcc 13.0; after that of a kernel come those of the functions that it calls.
SM_80 = f"""\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{GRAD_WARP}' for 'sm_80'
ptxas info    : Function properties for {GRAD_WARP}
    8 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 8 bytes cumulative stack size, 440 bytes smem
ptxas info    : Compile time = 58.627 ms
ptxas info    : Compiling entry function '{ROUND}' for 'sm_80'
ptxas info    : Function properties for {ROUND}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers, 376 bytes cmem[0]
ptxas info    : Compile time = 2.519 ms
ptxas info    : Function properties for __internal_trig_reduction_slowpathd
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""
SPILL = "8 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads"
FREE = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
SM_90 = SM_80.replace("sm_80", "sm_90").replace(SPILL, FREE)
CLEAN = SM_80.replace(SPILL, FREE) + SM_90


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check_spills", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclass looks for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def check(script, tmp_path, capsys):
    """Runs the script on a log: (exit status, what it prints)."""

    def run(log, source=SOURCE, architectures=("sm_80", "sm_90")):
        (tmp_path / "cuda").mkdir(exist_ok=True)
        (tmp_path / "cuda/kernels.cu").write_text(source)
        (tmp_path / "log").write_text(log)
        status = script.main(tmp_path / "log", tmp_path, *architectures)
        return status, capsys.readouterr().out

    return run


def test_clean(check):
    status, out = check(CLEAN)
    assert status == 0
    rows = [line.split() for line in out.splitlines()[1:]]
    assert rows == [
        ["GradWarpKernel", "sm_80", "1", "64", "0", "0"],
        ["GradWarpKernel", "sm_90", "1", "64", "0", "0"],
        ["RoundKernel", "sm_80", "1", "12", "0", "16"],
        ["RoundKernel", "sm_90", "1", "12", "0", "16"],
    ]


def test_prefixes_and_other_lines_between(check):
    between = "  2026-01-01 [3/9] c++ -c ops.cpp\n"
    assert check("".join(f"  | {line}\n{between}" for line in CLEAN.splitlines()))[0] == 0


@pytest.mark.parametrize("has_filter", [True, False])
def test_spill(check, script, monkeypatch, has_filter):
    if not has_filter:
        monkeypatch.setattr(script.shutil, "which", lambda name: None)
    elif not script.shutil.which("c++filt"):
        pytest.skip("there is no c++filt")
    name = "device_kernel<GradWarpKernel<Choice<BFloat16, 2, int, AffineMap<float, 2>, 2>, 8> >"
    status, out = check(SM_80 + SM_90)
    assert status == 1
    assert [line for line in out.splitlines() if "FAILED" in line] == [
        f"FAILED: {name if has_filter else GRAD_WARP} for sm_80 spills: 8 bytes stored and "
        "4 loaded, with 64 registers"
    ]


def test_spill_in_a_function_that_a_kernel_calls(check):
    called = "16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
    status, out = check(CLEAN.replace(called, SPILL, 1))
    assert status == 1
    name = "RoundKernel<Half, FloatSums<float> > >"
    assert f"{name} for sm_80 spills: 8 bytes stored" in out or ROUND in out


def test_a_kernel_of_two_source_files_counts_once(check):
    status, out = check(CLEAN + CLEAN)
    assert status == 0
    assert out == check(CLEAN)[1]


def test_no_kernels(check):
    status, out = check("ninja: no work to do.\n")
    assert status == 1
    assert "FAILED: GradWarpKernel for sm_80 is not in the log" in out
    assert "FAILED: RoundKernel for sm_90 is not in the log" in out


def test_no_sources(check):
    status, out = check(CLEAN, source="")
    assert status == 1
    assert "there are no kernels in the sources" in out


def test_no_architectures(check):
    assert check(CLEAN, architectures=())[0] == 1


def test_missing_architecture(check):
    status, out = check(CLEAN, architectures=("sm_80", "sm_90", "sm_100"))
    assert status == 1
    assert "FAILED: GradWarpKernel for sm_100 is not in the log" in out


def test_kernel_that_is_not_compiled(check):
    status, out = check(CLEAN, source=SOURCE + "struct NewKernel {};\n")
    assert status == 1
    assert "FAILED: NewKernel for sm_80 is not in the log" in out


def test_instantiation_that_one_architecture_lacks(check):
    status, out = check(CLEAN + SM_90.replace("8BFloat16", "4Half"))
    assert status == 1
    assert "the architectures do not have the same kernels: 2 for sm_80, 3 for sm_90" in out


@pytest.mark.parametrize("lost", ["bytes stack frame", "Used", "Function properties"])
def test_lost_line(check, lost):
    lines = CLEAN.splitlines()
    lines.remove(next(line for line in lines if lost in line))
    status, out = check("\n".join(lines))
    assert status == 1
    assert "the log lacks the resources of " in out


def test_two_reports_run_together(check):
    """Two compilers that write at the same time: whose spill this is, nobody can say."""
    status, out = check(CLEAN.replace(FREE, f"{FREE}\n{SPILL}", 1))
    assert status == 1
    assert "line 5 of the log tells of no known function" in out


@pytest.mark.parametrize(
    "source",
    [
        "struct OneKernel {};",
        "template <class T>\nstruct OneKernel {\n  struct Launch {};\n};",
        "/* struct\n OtherKernel {}; */ struct OneKernel\n{};",
        "struct OneKernel;\nstruct OneKernel {}; using K = OneKernel;",
    ],
)
def test_kernel_names(script, source):
    assert script.kernel_names(source) == ["OneKernel"]


def test_kernels_of_this_project(script):
    names = script.defined_kernels(SCRIPT.parent.parent / "csrc")
    assert {"SampleKernel", "ScatterKernel", "GatherKernel", "GradWarpKernel"} <= names
