"""Operations on masks against the slow and obvious way."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsi_nuc.tissue.masks import blurred


@given(
    sigma=st.floats(0.3, 20),
    height=st.integers(20, 300),
    width=st.integers(20, 300),
    seed=st.integers(0, 99),
)
def test_a_wide_blur_is_a_gaussian_s_but_for_the_rim(sigma: float, height: int, width: int, seed: int) -> None:
    grain = np.random.default_rng(seed).random((height, width, 3), np.float32)
    image = cv2.GaussianBlur(grain, (0, 0), 3.0)
    found, true = blurred(image, sigma), cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    assert found.shape == image.shape
    rim = int(3 * sigma)
    off = np.abs(found - true)[rim:-rim, rim:-rim] if min(height, width) > 2 * rim > 0 else np.zeros(1)
    assert off.max(initial=0) < 0.1 * image.std()
    assert abs(found.mean() - true.mean()) < 0.1 * image.std()
