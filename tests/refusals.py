"""How a call is refused."""

import pytest


def check_refused(call, kind, *beginnings):
    """By an error of this kind, of one line that begins in one of these ways and tells no C++."""
    with pytest.raises(kind) as error:
        call()
    text = str(error.value)
    assert text.startswith(beginnings), text
    assert "\n" not in text
    assert "csrc" not in text
    assert ".cpp" not in text
    assert len(text) < 700
