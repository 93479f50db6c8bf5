"""The server's settings: what they are, where they come from, how to show them.

`settings` holds the typed tree, the one place where a setting, its range, its default and its
help stand. `catalogue` derives the flag, the environment variable and the allowed values of each
from it. `load` merges flag > environment > file > default; `show` prints the result as TOML.
"""

from server.config.catalogue import CATALOGUE, Setting
from server.config.feedback import FeedbackSettings
from server.config.load import Effective, load_settings
from server.config.monitoring import DriftWatchSettings, EventSettings
from server.config.settings import (
    ControlSettings,
    DrainSettings,
    FastSettings,
    FeatureSettings,
    LogSettings,
    RedisSettings,
    RolloutSettings,
    Settings,
    SidecarSettings,
)
from server.config.show import to_toml

__all__ = [
    "CATALOGUE",
    "ControlSettings",
    "DrainSettings",
    "DriftWatchSettings",
    "Effective",
    "EventSettings",
    "FastSettings",
    "FeatureSettings",
    "FeedbackSettings",
    "LogSettings",
    "RedisSettings",
    "RolloutSettings",
    "Setting",
    "Settings",
    "SidecarSettings",
    "load_settings",
    "to_toml",
]
