"""What every test shares: Hypothesis without deadlines, and seeds that are printed."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Before any test imports onnxruntime, which otherwise reports usage over the network.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

settings.register_profile(
    "scoregate",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("scoregate")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Return a generator whose seed is shown when the test fails; SCOREGATE_SEED repeats it."""
    seed = int(os.environ.get("SCOREGATE_SEED", random.SystemRandom().randrange(2**32)))
    print(f"SCOREGATE_SEED={seed}")
    return np.random.default_rng(seed)
