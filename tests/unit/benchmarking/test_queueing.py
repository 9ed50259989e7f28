from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskserve.benchmarking.queueing import wait_in_queue


@given(use=st.floats(0.01, 0.99), service_s=st.floats(0.001, 10), variation=st.floats(0, 2))
def test_one_server_waits_as_pollaczek_and_khinchine_say(
    use: float, service_s: float, variation: float
) -> None:
    found = wait_in_queue(use / service_s, servers=1, service_s=service_s, variation=variation)
    assert found == pytest.approx(use * service_s * (1 + variation) / 2 / (1 - use))


@given(use=st.floats(0.1, 0.95), servers=st.integers(1, 30))
def test_one_queue_for_all_is_shorter_than_one_for_each(use: float, servers: int) -> None:
    alone = wait_in_queue(use, servers=1, service_s=1, variation=0.3)
    together = wait_in_queue(use * servers, servers=servers, service_s=1, variation=0.3)
    assert together <= alone * (1 + 1e-9)


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("variation", [0.0, 1.0])
def test_a_simulated_queue_waits_as_long(servers: int, variation: float) -> None:
    rng = np.random.default_rng(5)
    count, rate = 200_000, 0.7 * servers
    arrivals = rng.exponential(1 / rate, count).cumsum()
    services = rng.exponential(1, count) if variation else np.ones(count)
    free = [0.0] * servers
    waited = 0.0
    for arrival, service in zip(arrivals, services, strict=True):
        begins = max(arrival, heapq.heappop(free))
        waited += begins - arrival
        heapq.heappush(free, begins + service)
    expected = wait_in_queue(rate, servers=servers, service_s=1, variation=variation)
    # Exact but for several servers with service times that do not vary.
    assert waited / count == pytest.approx(expected, rel=0.06 if variation else 0.1)


def test_more_than_can_be_served_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"2 servers cannot serve 2\.50"):
        wait_in_queue(5, servers=2, service_s=0.5, variation=0)
