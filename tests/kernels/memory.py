"""How much memory a computation takes on the CPU, as torch's allocator tells its profiler."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(compute: Callable[[], object]) -> int:
    """The most that was allocated at a time beyond what there was before; what operators hold inside is counted too."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        compute()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = peak = 0
    for event in events:
        held += event.nbytes()
        peak = max(peak, held)
    assert peak > 0
    return peak
