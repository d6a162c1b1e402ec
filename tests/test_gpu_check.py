"""`make gpu-check` as far as it can be told without a GPU: its steps, their ends, its report."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import gpu_check
from benchmarks.environment import ROOT
from benchmarks.gpu_check import Outcome, Step

pytestmark = pytest.mark.quick

ABOUT = {"GPU": "Slide Rule", "commit": "0123456789ab"}


def python(code, name="step", **options):
    return Step(name, (sys.executable, "-c", code), **options)


@pytest.fixture
def machine(monkeypatch):
    """A machine with a "GPU", on which the steps are as the test says."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "facts", lambda: ABOUT)

    def have(*steps):
        monkeypatch.setattr(gpu_check, "steps", lambda *arguments: list(steps))

    return have


# --- steps ------------------------------------------------------------------------------------


def test_all_steps(tmp_path):
    steps = gpu_check.steps(gpu_check.STEPS, tmp_path, "/tools/compute-sanitizer", "--full")
    assert [step.name for step in steps] == gpu_check.STEPS
    build, cuda, others, *sanitized, benchmark = steps
    assert build.command[1:] == ("setup.py", "build_ext", "--inplace")
    assert build.variables == {"STN_CUDA_BUILD": "cuda"}
    assert cuda.command[3:5] == ("-m", "cuda") and others.command[3:5] == ("-m", "not cuda")
    for step, tool in zip(sanitized, gpu_check.SANITIZERS, strict=True):
        assert step.command[:3] == ("/tools/compute-sanitizer", "--tool", tool)
        assert (ROOT / step.command[-1]).is_file() and not step.missing
    expected = ("--device", "cuda", "--full", "--out", str(tmp_path))
    assert benchmark.command[-len(expected) :] == expected


def test_chosen_steps(tmp_path):
    names = list(gpu_check.expand(["benchmark", "sanitizer", "cuda-tests"]))
    steps = gpu_check.steps(names, tmp_path, None, "")
    assert [step.name for step in steps] == ["cuda-tests", *gpu_check.SANITIZERS, "benchmark"]
    assert [bool(step.missing) for step in steps] == [False, *[True] * 4, False]


def test_the_sanitizer_of_a_toolkit_is_found(tmp_path):
    tool = tmp_path / "bin" / "compute-sanitizer"
    tool.parent.mkdir()
    tool.write_text("")
    tool.chmod(0o755)
    assert gpu_check.find_sanitizer({"PATH": "", "CUDA_HOME": str(tmp_path)}) == str(tool)
    assert gpu_check.find_sanitizer({"PATH": str(tool.parent)}) == str(tool)


def test_the_subset_for_the_sanitizer_runs():
    command = [sys.executable, ROOT / "tests" / "sanitizer_subset.py", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "calls, forward and backward" in done.stdout


# --- a step -----------------------------------------------------------------------------------


def test_a_step_that_passes(tmp_path):
    code = "import os; print(os.environ['ANSWER'], os.getcwd())"
    one = gpu_check.run(python(code, variables={"ANSWER": "42"}), tmp_path, None)
    assert (one.name, one.result, one.failed) == ("step", "passed", False)
    assert one.seconds > 0
    first, second = (tmp_path / "step.log").read_text().splitlines()
    assert first.startswith("$ ") and second == f"42 {ROOT}"


def test_a_step_that_fails(tmp_path):
    code = "import sys; print('out'); sys.exit('err')"
    one = gpu_check.run(python(code), tmp_path, None)
    assert (one.result, one.failed) == ("exit status 1", True)
    assert (tmp_path / "step.log").read_text().splitlines()[1:] == ["out", "err"]


def test_a_step_that_dies(tmp_path):
    one = gpu_check.run(python("import os; os.kill(os.getpid(), 9)"), tmp_path, None)
    assert (one.result, one.failed) == ("exit status -9", True)


@pytest.fixture
def deaf():
    """Meanwhile, this process ignores SIGINT, as a shell's background jobs do."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_step_over_its_limit_can_finish_and_has_failed(tmp_path, deaf):
    code = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('kept')"
    one = gpu_check.run(python(code), tmp_path, 1.0)
    assert (one.result, one.failed) == ("interrupted after 1 s", True)
    assert one.seconds < gpu_check.GRACE
    assert (tmp_path / "step.log").read_text().splitlines()[-1] == "kept"


def test_a_step_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "GRACE", 0.5)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    one = gpu_check.run(python(code), tmp_path, 1.0)
    assert one.failed and one.seconds < 30


@pytest.mark.parametrize(
    ("step", "result"),
    [
        (Step("step", ("no-such-tool",)), "not run: .*no-such-tool"),
        (Step("step", ("true",), missing="it is not there"), "not run: it is not there"),
    ],
)
def test_a_missing_tool_is_told(tmp_path, step, result):
    one = gpu_check.run(step, tmp_path, None)
    assert one.failed and one.seconds is None
    assert re.match(result, one.result)


@pytest.mark.parametrize(
    ("body", "result"),
    [("pass", "passed"), ("pytest.skip('no CUDA')", "no test was run")],
)
def test_skipped_tests_alone_are_no_success(tmp_path, body, result):
    (tmp_path / "test_one.py").write_text(f"import pytest\n\n\ndef test_one():\n    {body}\n")
    options = ("-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", os.devnull)
    command = (sys.executable, "-m", "pytest", *options, str(tmp_path / "test_one.py"))
    junit = f"--junitxml={tmp_path / 'step.xml'}"
    step = Step("step", (*command, junit), files=("step.xml",), junit="step.xml")
    one = gpu_check.run(step, tmp_path, None)
    assert (one.result, one.failed) == (result, result != "passed")


def test_what_an_earlier_run_left_is_not_taken_for_this_one(tmp_path):
    for name in ("step.log", "results.md"):
        (tmp_path / name).write_text("old")
    step = python("", files=("results.md",), missing="it is not there")
    gpu_check.run(step, tmp_path, None)
    assert list(tmp_path.iterdir()) == []


# --- the report -------------------------------------------------------------------------------


def test_report(tmp_path):
    lines = [f"line {number}" for number in range(gpu_check.TAIL + 10)]
    (tmp_path / "memcheck.log").write_text("\n".join([*lines, "ERROR SUMMARY: 1 error", ""]))
    (tmp_path / "cuda-tests.log").write_text("==== 7 passed, 1 skipped in 2 s ====\n")
    (tmp_path / "results.md").write_text("| work |\n")
    outcomes = [
        Outcome("cuda-tests", "passed", False, 12.3),
        Outcome("memcheck", "exit status 1", True, 45.6),
        Outcome("racecheck", "not run: no tool", True),
    ]
    text = gpu_check.markdown(ABOUT, outcomes, 1, tmp_path)
    assert text.startswith("# gpu-check: 2 of 3 steps failed, 1 still to run\n")
    for line in (
        "| GPU | Slide Rule |",
        "| cuda-tests | passed | 12 | 7 passed, 1 skipped in 2 s |",
        "| memcheck | exit status 1 | 46 | ERROR SUMMARY: 1 error |",
        "| racecheck | not run: no tool |  |  |",
        "## The end of memcheck.log",
    ):
        assert line in text.splitlines()
    assert "line 10\n" not in text and "line 11\n" in text
    assert "## Benchmark" not in text  # what lies there is not of this run
    outcomes = [Outcome("benchmark", "passed", False, 1.0)]
    text = gpu_check.markdown(ABOUT, outcomes, 0, tmp_path)
    assert text.startswith("# gpu-check: passed\n")
    assert text.endswith("## Benchmark\n\n| work |\n")


# --- the command ------------------------------------------------------------------------------


def test_a_failing_step_does_not_stop_the_later_ones(machine, tmp_path, capsys):
    machine(python("raise SystemExit(3)", "first"), python("print('done')", "second"))
    assert gpu_check.main(["--report", str(tmp_path / "deep")]) == 1
    text = (tmp_path / "deep" / "report.md").read_text()
    assert "| first | exit status 3 |" in text and "| second | passed |" in text
    printed = capsys.readouterr().out
    assert "first: exit status 3" in printed and "second: passed" in printed


def test_the_report_is_there_after_every_step(machine, tmp_path, monkeypatch):
    machine(python("", "first"), python("", "second"))
    run = gpu_check.run

    def interrupted(step, *arguments):
        if step.name == "second":
            raise KeyboardInterrupt
        return run(step, *arguments)

    monkeypatch.setattr(gpu_check, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpu_check.main(["--report", str(tmp_path)])
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# gpu-check: passed, 1 still to run\n")


def test_missing_tools_fail_unless_told_otherwise(machine, tmp_path):
    arguments = ["--report", str(tmp_path)]
    gone = Step("memcheck", ("true",), missing="no tool")
    machine(python(""), gone)
    assert gpu_check.main(arguments) == 1
    assert gpu_check.main([*arguments, "--missing-tools-ok"]) == 0
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# gpu-check: passed\n") and "| not run: no tool |" in text
    machine(python("raise SystemExit(3)"), gone)
    assert gpu_check.main([*arguments, "--missing-tools-ok"]) == 1


def test_without_a_gpu_it_ends_at_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_check.main(["--report", str(tmp_path / "report")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "gpu-check needs a GPU: torch.cuda.is_available() is False"
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_step_is_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        gpu_check.main(["--steps", "build nonsense"])
    assert exit_.value.code == 2
    assert "--steps must be of build, tests, " in capsys.readouterr().err
