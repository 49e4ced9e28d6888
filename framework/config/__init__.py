"""Every configuration field there is, once, with its default and its unit: a file for each entry point,
and for each side of training.

`configs/` holds only what differs from here. Types are checked while Hydra composes; what one field
demands of another is checked by the `check` methods, whose messages start with the field's name.
"""

from framework.config.adaptation import AdaptationConfig, AdapterConfig, FreezeConfig
from framework.config.cluster import ClusterConfig
from framework.config.compress import CompressConfig
from framework.config.data import BatchConfig, DataConfig, ObjectiveConfig, RemoteConfig
from framework.config.doctor import DoctorConfig
from framework.config.evaluate import EvaluateConfig, EvaluationConfig, MemorizationConfig, PerplexityConfig
from framework.config.execution import MemoryConfig, ParallelConfig, PrecisionConfig, ZeroConfig
from framework.config.finetune import FinetuneConfig
from framework.config.generate import GenerateConfig, HookConfig, ModelSource
from framework.config.labelled import LabelledDataConfig
from framework.config.model import ModelConfig, StartingModelConfig
from framework.config.optimization import EmaConfig, LossConfig, OptimizerConfig, ScheduleConfig
from framework.config.plan import InferencePlanConfig, PlanConfig
from framework.config.prepare import CorpusConfig, ExecutorConfig, PrepareConfig, ShardConfig, TokenizerConfig
from framework.config.pretrain import PretrainConfig
from framework.config.record import ProfileConfig, RunConfig, SamplesConfig, TrackerConfig, ValidationConfig
from framework.config.report import ReportConfig
from framework.config.serve import LimitsConfig, ServeConfig
from framework.config.survival import CheckpointConfig, GuardConfig
from framework.config.sweep import SweepConfig
from framework.config.tasks import BiasConfig, HarnessConfig, TasksConfig
from framework.config.training import TrainingConfig

__all__ = [
    "AdaptationConfig",
    "AdapterConfig",
    "BatchConfig",
    "BiasConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "CompressConfig",
    "CorpusConfig",
    "DataConfig",
    "DoctorConfig",
    "EmaConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExecutorConfig",
    "FinetuneConfig",
    "FreezeConfig",
    "GenerateConfig",
    "GuardConfig",
    "HarnessConfig",
    "HookConfig",
    "InferencePlanConfig",
    "LabelledDataConfig",
    "LimitsConfig",
    "LossConfig",
    "MemorizationConfig",
    "MemoryConfig",
    "ModelConfig",
    "ModelSource",
    "ObjectiveConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PerplexityConfig",
    "PlanConfig",
    "PrecisionConfig",
    "PrepareConfig",
    "PretrainConfig",
    "ProfileConfig",
    "RemoteConfig",
    "ReportConfig",
    "RunConfig",
    "SamplesConfig",
    "ScheduleConfig",
    "ServeConfig",
    "ShardConfig",
    "StartingModelConfig",
    "SweepConfig",
    "TasksConfig",
    "TokenizerConfig",
    "TrackerConfig",
    "TrainingConfig",
    "ValidationConfig",
    "ZeroConfig",
]
