"""Token shards to a model directory: `configs/pretrain.yaml`."""

from dataclasses import dataclass, field

from framework.checks import require, require_choice, require_positive
from framework.config.data import BatchConfig, DataConfig, ObjectiveConfig
from framework.config.execution import ClusterConfig, MemoryConfig, ParallelConfig, PrecisionConfig, ZeroConfig
from framework.config.model import StartingModelConfig
from framework.config.optimization import EmaConfig, LossConfig, OptimizerConfig, ScheduleConfig
from framework.config.record import ProfileConfig, RunConfig, SamplesConfig, TrackerConfig, ValidationConfig
from framework.config.survival import CheckpointConfig, GuardConfig


@dataclass
class PretrainConfig:
    """`torchrun -m framework.pretrain`: token shards to checkpoints and a model directory."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    model: StartingModelConfig = field(default_factory=StartingModelConfig)
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
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    deterministic: bool = False  # the same bits from every run of the same layout on a GPU too, at some cost in speed

    @property
    def origin(self) -> str:
        """The field `model.from`: the model directory that the run starts from, or empty for random weights."""
        return getattr(self.model, "from", "")

    def check(self, world_size: int = 1) -> None:
        require_positive("data.lanes", self.data.lanes)
        require_choice("kernels", self.kernels, ("auto", "triton", "hopper", "sdpa", "reference"))
        self.data.remote.check()
        parts = (self.run, self.objective, self.model, self.optimizer, self.schedule, self.zero, self.precision)
        others = (self.loss, self.memory, self.cluster, self.checkpoint, self.guard, self.validation, self.tracker)
        for part in (*parts, *others):
            part.check()
        self.ema.check(self.schedule.steps)
        self._check_optimizer()
        self.samples.check(self.model.maximum_positions)
        require(
            not self.samples.every or self.objective.name != "masked_lm",
            "samples.every",
            f"is {self.samples.every}, but a model that fills masks writes no text",
            "set it to 0",
        )
        self.profile.check(self.schedule.steps)
        self.parallel.check(world_size)
        self.parallel.check_model(self.model)
        require(
            self.precision.dtype != "fp8" or self.parallel.tensor == 1,
            "parallel.tensor",
            f"is {self.parallel.tensor}, and layers that ranks share are DeepSpeed's, which compute without fp8",
            "set it to 1, or choose precision=bf16",
        )
        self.batch.check(self.data.lanes, self.parallel.data_ranks(world_size))
        require(
            self.precision.dtype == "fp32" or self.zero.stage > 0,
            "precision.dtype",
            f"{self.precision.dtype} with zero.stage=0 would accumulate gradients in bf16",
            "choose zero=stage1, which gives the same updates",
        )
        is_masked = self.objective.name == "masked_lm"
        require(
            self.model.causal != is_masked,
            "model.causal",
            f"is {str(self.model.causal).lower()}, and with it objective.name={self.objective.name} would "
            + ("fill in masks from one side" if is_masked else "read the very token that it is to predict"),
            "choose model=encoder_tiny, eurobert_210m or model.causal=false"
            if is_masked
            else "choose objective=masked_lm or model.causal=true",
        )
        self._check_lengths()

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

    def _check_lengths(self) -> None:
        lengths = {"data.sequence_length": self.data.sequence_length}
        lengths |= {f"data.length_changes.{begin}": length for begin, length in self.data.length_changes.items()}
        for name, length in lengths.items():
            require_positive(name, length)
            require(
                length <= self.model.maximum_positions,
                name,
                f"{length} exceeds model.maximum_positions={self.model.maximum_positions}",
                "shorten the sequences or raise model.maximum_positions",
            )
            self.parallel.check_length(name, length)
        begin, sequences = 0, self.batch.sequences
        for edge in sorted({**self.batch.changes, **self.data.length_changes}):
            group = "batch.changes" if edge in self.batch.changes else "data.length_changes"
            require(
                edge > 0 and (edge - begin) % sequences == 0,
                f"{group}.{edge}",
                f"falls inside a batch of {sequences} sequences",
                f"use {begin + max(1, round((edge - begin) / sequences)) * sequences}",
            )
            begin, sequences = edge, self.batch.changes.get(edge, sequences)
