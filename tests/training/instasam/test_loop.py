"""From dots on a slide to a model that runs on it, and what is told on the way."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.dots.drawn import drawn_slide
