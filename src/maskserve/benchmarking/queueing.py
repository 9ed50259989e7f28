"""How long photos wait for a server that is not idle, by queueing theory."""

from __future__ import annotations

__all__ = ["wait_in_queue"]


def wait_in_queue(rate: float, *, servers: int, service_s: float, variation: float) -> float:
    """Mean wait in M/G/c: Erlang's C formula, corrected for how much service times vary.

    Args:
        rate: Arrivals a second, at random; less than ``servers / service_s``.
        servers: Photos that are worked on at a time.
        service_s: Mean time of one in seconds.
        variation: Squared coefficient of variation of that time: 0 where all take the same time,
            1 for an exponential distribution.

    Returns:
        Seconds, without the photo's own time.

    Raises:
        ValueError: More arrive than can be served: the queue grows without end.

    Source: Allen, Probability, Statistics, and Queueing Theory, 1990, section 5.4. For one server
    it is the formula of Pollaczek and Khinchine.
    """
    offered = rate * service_s
    if not 0 <= offered < servers:
        raise ValueError(f"{servers} servers cannot serve {offered:.2f} photos at a time")
    blocked = 1.0  # Erlang's B formula, by recursion
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    use = offered / servers
    waits = blocked / (1 - use * (1 - blocked))
    return waits / (servers / service_s - rate) * (1 + variation) / 2
