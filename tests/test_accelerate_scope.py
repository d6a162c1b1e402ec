"""accelerate(): who is accelerated, and how long: threads, tasks, blocks that end in any order."""

import asyncio
import contextlib
import contextvars
import threading

import pytest
import torch
from accelerated import X, called_ops, exchange_undone, is_ours, sampled

import stn_cuda
from stn_cuda import acceleration


@pytest.fixture(autouse=True)
def _undone():
    with exchange_undone():
        yield


@pytest.mark.quick
def test_for_the_process():
    handle = stn_cuda.accelerate()
    try:
        assert is_ours()
        assert in_thread(is_ours)
        assert contextvars.Context().run(is_ours)
    finally:
        handle.remove()
    assert not is_ours()
    handle.remove()
    assert not is_ours()


@pytest.mark.quick
def test_for_a_block():
    with stn_cuda.accelerate() as handle:
        assert is_ours()
        assert "block" in repr(handle)
    assert "removed" in repr(handle)
    assert not is_ours()


@pytest.mark.quick
def test_exceptions_pass_and_end_the_block():
    with pytest.raises(LookupError, match="mine"), stn_cuda.accelerate():
        raise LookupError("mine")
    assert not is_ours()


@pytest.mark.quick
def test_nested():
    with stn_cuda.accelerate():
        with stn_cuda.accelerate():
            assert is_ours()
        assert is_ours()
    assert not is_ours()


@pytest.mark.quick
@pytest.mark.parametrize("order", ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)))
@pytest.mark.parametrize("kinds", ("bbb", "ppp", "bpb", "pbp"))
def test_removed_in_any_order(kinds, order):
    """Blocks and handles of the process: until the last has gone."""
    handles = []
    for kind in kinds:
        handles.append(stn_cuda.accelerate())
        if kind == "b":
            handles[-1].__enter__()
    for number in order:
        assert is_ours()
        assert in_thread(is_ours) == any(
            kind == "p" and handle._state != "removed"
            for kind, handle in zip(kinds, handles, strict=True)
        )
        handles[number].remove()
    assert not is_ours()
    assert acceleration._innermost.get() is None


@pytest.mark.quick
def test_removed_within_its_block():
    with stn_cuda.accelerate() as handle:
        handle.remove()
        assert not is_ours()
    assert not is_ours()


@pytest.mark.quick
def test_a_handle_serves_one_block():
    with stn_cuda.accelerate() as handle:
        with pytest.raises(RuntimeError, match="got one that was entered before"), handle:
            pass
        assert is_ours()
    with pytest.raises(RuntimeError, match="got one that was removed before"), handle:
        pass
    assert not is_ours()


def in_thread(function):
    """function() in a thread of its own."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.quick
def test_a_block_is_of_its_thread():
    with stn_cuda.accelerate():
        assert not in_thread(is_ours)
        context = contextvars.copy_context()
        assert in_thread(lambda: context.run(is_ours))
    # The copy still knows the handle, which has been removed.
    assert not in_thread(lambda: context.run(is_ours))


@pytest.mark.quick
def test_the_backward_follows_its_forward():
    x = X.clone().requires_grad_()
    with stn_cuda.accelerate():
        y = sampled(x)
    assert "stn_cuda::splat" in called_ops(lambda: y.sum().backward())
    y = sampled(x)
    with stn_cuda.accelerate():
        assert not any("stn_cuda" in name for name in called_ops(lambda: y.sum().backward()))


@pytest.mark.quick
def test_many_threads():
    """Blocks come and go in some threads, and none of them sees another's."""
    wrong = []
    between = threading.Lock()  # held from the call to the block: until then it is the process'

    def inside():
        for _ in range(50):
            with contextlib.ExitStack() as stack:
                with between:
                    stack.enter_context(stn_cuda.accelerate())
                observe(True)
                with between:
                    stn_cuda.accelerate().__enter__().remove()
                observe(True)
            observe(False)

    def outside():
        for _ in range(150):
            observe(False)

    def observe(expected):
        with between:
            if is_ours() != expected:
                wrong.append(expected)

    threads = [threading.Thread(target=target) for target in (inside, outside, inside, outside)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.quick
def test_asyncio_tasks():
    """A block of one task is not another's, and tasks that it starts have it while it lasts."""

    async def accelerated(begun, go_on):
        with stn_cuda.accelerate():
            child = asyncio.create_task(observe(go_on))
            begun.set()
            await asyncio.sleep(0)
            states = [is_ours()]
            await go_on.wait()
            states.append(is_ours())
            states.append(await child)
        return states

    async def observe(event):
        await event.wait()
        return is_ours()

    async def main():
        begun, go_on = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(accelerated(begun, go_on))
        other = await asyncio.create_task(observe(begun))
        here = is_ours()
        go_on.set()
        return await task, other, here, is_ours()

    assert asyncio.run(main()) == ([True, True, True], False, False, False)


@pytest.mark.quick
def test_generators():
    """As with every context manager, a generator's block lasts while it is suspended; it ends
    wherever, and in whatever order, the generators do."""

    def work():
        with stn_cuda.accelerate():
            yield is_ours()

    first, second = work(), work()
    assert next(first) and next(second)
    first.close()
    assert is_ours()
    in_thread(second.close)
    assert not is_ours()


@pytest.mark.quick
def test_together_with_another_patch():
    """Who exchanges torch's function meanwhile is neither undone nor called in a circle."""

    def theirs(*arguments):
        calls.append(arguments)
        return before(*arguments)

    torchs, calls = torch.grid_sampler, []
    try:
        with stn_cuda.accelerate():
            before, torch.grid_sampler = torch.grid_sampler, theirs
            assert is_ours() and len(calls) == 1
        assert torch.grid_sampler is theirs
        assert not is_ours() and len(calls) == 2
        with stn_cuda.accelerate():
            assert is_ours()
        assert torch.grid_sampler is theirs
        assert not is_ours()
        torch.grid_sampler = before  # ours, now idle
        assert not is_ours()
        with stn_cuda.accelerate():
            assert is_ours()
        assert torch.grid_sampler is torchs
    finally:
        torch.grid_sampler = torchs
