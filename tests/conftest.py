"""What every test shares: Hypothesis without deadlines, seeds that are printed, Ctrl-C."""

from __future__ import annotations

import os
import random
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Before any test imports onnxruntime, which otherwise reports usage over the network.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A shell that starts the suite in the background has it ignore Ctrl-C, and every process after it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
