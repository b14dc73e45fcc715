"""The weight of the distillation term as a pure function of the update number, alpha(u) of ``docs/method.md``."""

__all__ = ["alpha_at_update"]


def alpha_at_update(num_updates: int, *, alpha_max: float, warmup_updates: int, start_update: int = 0) -> float:
    """Return ``alpha(u) = alpha_max * min(1, (u - start_update) / warmup_updates)``, and 0 before ``start_update``.

    It has no state, so a resumed run continues with the alpha that the uninterrupted run would have had.

    Args:
        num_updates: optimizer updates done so far (not batches), at least 0.
        alpha_max: the cap of alpha, in [0, 1].
        warmup_updates: length of the linear ramp from 0; 0 means ``alpha_max`` from ``start_update`` on.
        start_update: the update at which the ramp begins, at least 0.

    Returns:
        alpha in [0, alpha_max], a Python float.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0.0 <= alpha_max <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], got {alpha_max}")
    if warmup_updates < 0:
        raise ValueError(f"warmup_updates must be at least 0, got {warmup_updates}")
    if start_update < 0:
        raise ValueError(f"start_update must be at least 0, got {start_update}")
    if num_updates < 0:
        raise ValueError(f"num_updates must be at least 0, got {num_updates}")
    since_start = num_updates - start_update
    if since_start < 0:
        return 0.0
    if since_start >= warmup_updates:
        return float(alpha_max)
    return alpha_max * (since_start / warmup_updates)
