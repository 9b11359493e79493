"""Drawn scenes with known content, and questions about them. Data only: the models trained on them are in `demo`."""

from __future__ import annotations

from biaskit.images.scenes.source import SceneSource as SceneSource  # registers itself, as the modules of `images` do
