"""Moderation: an application's own word on what is asked for, before it is sent, and on what was made.

The names here are public. The gateway calls the hooks that it is given within a time limit, and by a stated rule for
when they fail.
"""

from imagegate.moderation.subjects import ModeratedImage, ModeratedImages, ModerationRequest
from imagegate.moderation.verdicts import Refuse, Replace, Withhold

__all__ = ["ModeratedImage", "ModeratedImages", "ModerationRequest", "Refuse", "Replace", "Withhold"]
