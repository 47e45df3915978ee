"""cnn: images in, classes out."""

from __future__ import annotations

from .cases import Case, images

HEART = {"dropout": 0.0, "weight_decay": 0.0, "average": 0.0, "augment": 0.0, "width": 8}
SMALL = {"width": 8, "stages": 2, "average": 0.9}
CASES = [Case("images", images("classification"), SMALL, HEART, reached=0.05)]
