"""Every configuration field there is, once, with its default and its unit: a file for each entry point,
and for each side of training.

`configs/` holds only what differs from here. Types are checked while Hydra composes; what one field
demands of another is checked by the `check` methods, whose messages start with the field's name.
"""

from framework.config.data import BatchConfig, DataConfig, ObjectiveConfig, RemoteConfig
from framework.config.execution import ClusterConfig, MemoryConfig, PrecisionConfig, ZeroConfig
from framework.config.generate import GenerateConfig, ModelSource
from framework.config.model import ModelConfig, StartingModelConfig
from framework.config.optimization import LossConfig, OptimizerConfig, ScheduleConfig
from framework.config.prepare import CorpusConfig, ExecutorConfig, PrepareConfig, ShardConfig, TokenizerConfig
from framework.config.pretrain import PretrainConfig
from framework.config.record import RunConfig, TrackerConfig, ValidationConfig
from framework.config.survival import CheckpointConfig, GuardConfig

__all__ = [
    "BatchConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "CorpusConfig",
    "DataConfig",
    "ExecutorConfig",
    "GenerateConfig",
    "GuardConfig",
    "LossConfig",
    "MemoryConfig",
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
    "StartingModelConfig",
    "TokenizerConfig",
    "TrackerConfig",
    "ValidationConfig",
    "ZeroConfig",
]
