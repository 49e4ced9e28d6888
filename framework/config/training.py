"""What training is told whatever it trains, and on what: the part that pretraining and fine-tuning share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from framework.checks import require, require_choice
from framework.config.cluster import ClusterConfig
from framework.config.data import BatchConfig
from framework.config.evaluate import EvaluationConfig
from framework.config.execution import MemoryConfig, ParallelConfig, PrecisionConfig, ZeroConfig
from framework.config.model import ModelConfig
from framework.config.optimization import EmaConfig, LossConfig, OptimizerConfig, ScheduleConfig
from framework.config.record import ProfileConfig, RunConfig, SamplesConfig, TrackerConfig, ValidationConfig
from framework.config.survival import CheckpointConfig, GuardConfig
from framework.config.sweep import SweepConfig


@dataclass
class TrainingConfig(ABC):
    """The groups of fields that every run has; `model` is the shape of what it trains."""

    keeps_records: ClassVar[bool] = True  # in a run directory

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    # Of attention and the loss. auto: triton on a GPU, sdpa elsewhere | triton: our own | hopper: the same, attention's
    # forward for Hopper, unmeasured | sdpa: torch's | reference: written out
    kernels: str = "auto"
    compile: bool = False  # transformer blocks by torch.compile; a few minutes at the start for less a step
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    deterministic: bool = False  # the same bits from every run of the same layout on a GPU too, at some cost in speed

    @property
    @abstractmethod
    def lengths(self) -> dict[int, int]:
        """Tokens in a row from each sequence number on."""

    @property
    def predicts_tokens(self) -> bool:
        """Whether every position's hidden state is projected to the vocabulary."""
        return True

    @property
    @abstractmethod
    def origin(self) -> str:
        """The model directory that the run starts from, or empty for random weights."""

    @property
    @abstractmethod
    def origin_field(self) -> str:
        """The name of the field that says so."""

    def check(self, world_size: int = 1) -> None:
        require_choice("kernels", self.kernels, ("auto", "triton", "hopper", "sdpa", "reference"))
        parts = (self.run, self.model, self.optimizer, self.zero, self.precision, self.loss)
        watching = (self.checkpoint, self.guard, self.validation, self.evaluation, self.tracker)
        for part in (*parts, self.memory, self.cluster, self.sweep, *watching):
            part.check()
        self._check_optimizer()
        self.samples.check(self.model.maximum_positions)
        self.parallel.check(world_size)
        self.parallel.check_model(self.model)
        require(
            self.precision.dtype != "fp8" or self.parallel.tensor == 1,
            "parallel.tensor",
            f"is {self.parallel.tensor}, and layers that ranks share are DeepSpeed's, which compute without fp8",
            "set it to 1, or choose precision=bf16",
        )
        require(
            self.precision.dtype == "fp32" or self.zero.stage > 0,
            "precision.dtype",
            f"{self.precision.dtype} with zero.stage=0 would accumulate gradients in bf16",
            "choose zero=stage1, which gives the same updates",
        )

    def check_steps(self) -> None:
        """What depends on how many steps there are."""
        self.schedule.check()
        self.ema.check(self.schedule.steps)
        self.profile.check(self.schedule.steps)

    def _check_optimizer(self) -> None:
        require(
            self.optimizer.name != "muon" or self.parallel.tensor == 1,
            "parallel.tensor",
            f"is {self.parallel.tensor}, and optimizer.name=muon needs each matrix whole",
            "set it to 1, or choose optimizer=adamw",
        )
        require(
            self.optimizer.name != "muon" or self.zero.offload == "none",
            "zero.offload",
            f"is {self.zero.offload}, and optimizer.name=muon would orthogonalise matrices on the host",
            "choose zero.offload=none, or optimizer=adamw",
        )
        require(
            self.ema.decay == 0 or self.zero.offload != "nvme",
            "ema.decay",
            f"is {self.ema.decay}, and zero.offload=nvme swaps the optimizer's own state alone",
            "set it to 0, or zero.offload=cpu",
        )
