"""The figures of README.md are those of the files that it names."""

import re
import sys
from pathlib import Path

import pytest

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks.cli import main
from benchmarks.environment import ROOT


@pytest.mark.quick
def test_the_benchmark_is_what_the_command_beside_it_prints(monkeypatch, capsys):
    text = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"`python -m benchmarks (--render [^`]+)`", text)
    monkeypatch.chdir(ROOT)
    assert main(command.split()) == 0
    facts, table = capsys.readouterr().out.split("\n\n")[:2]
    assert f"{facts}\n\n{table}\n" in text
