"""Fixtures for the whole suite."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real weights, photos and labelled images beside the checkout; skips where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "README.md").exists():
        pytest.skip("the real data set beside the checkout is absent")
    return folder


@pytest.fixture
def device() -> str:
    """The GPU. DISSECT_EXPECT_CUDA=1 turns its absence into a failure."""
    if not torch.cuda.is_available():
        if os.environ.get("DISSECT_EXPECT_CUDA") == "1":
            pytest.fail("DISSECT_EXPECT_CUDA=1, but torch sees no GPU")
        pytest.skip("no GPU")
    return "cuda"
