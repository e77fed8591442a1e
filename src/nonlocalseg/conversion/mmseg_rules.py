"""The rules of every head of mmsegmentation that can be converted."""

from __future__ import annotations

from nonlocalseg.conversion import mmseg_attending, mmseg_framed, mmseg_heads, mmseg_pyramids
from nonlocalseg.conversion.rules import HeadRule

RULES: tuple[HeadRule, ...] = (*mmseg_attending.RULES, *mmseg_framed.RULES, *mmseg_pyramids.RULES, *mmseg_heads.RULES)
"""In the order in which a checkpoint without config is asked: an FCN's keys are in others, too, so it is the last."""
