"""Every configuration field there is, once, with its default and its unit: a file for each entry point.

`configs/` holds only what differs from here. Types are checked while Hydra composes; what one field
demands of another is checked by the `check` methods, whose messages start with the field's name.
"""

from framework.config.generate import GenerateConfig, ModelSource
from framework.config.model import ModelConfig
from framework.config.prepare import CorpusConfig, ExecutorConfig, PrepareConfig, ShardConfig, TokenizerConfig
from framework.config.pretrain import (
    BatchConfig,
    CheckpointConfig,
    ClusterConfig,
    DataConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PrecisionConfig,
    PretrainConfig,
    RemoteConfig,
    RunConfig,
    ScheduleConfig,
    TrackerConfig,
    ValidationConfig,
    ZeroConfig,
)

__all__ = [
    "BatchConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "CorpusConfig",
    "DataConfig",
    "ExecutorConfig",
    "GenerateConfig",
    "ModelConfig",
    "ModelSource",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PrecisionConfig",
    "PrepareConfig",
    "PretrainConfig",
    "RemoteConfig",
    "RunConfig",
    "ScheduleConfig",
    "ShardConfig",
    "TokenizerConfig",
    "TrackerConfig",
    "ValidationConfig",
    "ZeroConfig",
]
