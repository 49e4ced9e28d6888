"""What is asked of a plan: `configs/plan.yaml`. Its other fields are those of the run that it is for."""

from dataclasses import dataclass, field
from typing import ClassVar

from framework.checks import require, require_choice, require_not_negative, require_positive
from framework.config.adaptation import AdaptationConfig
from framework.config.data import BatchConfig, DataConfig
from framework.config.finetune import TaskConfig
from framework.config.optimization import ScheduleConfig
from framework.config.pretrain import PretrainConfig
from framework.config.training import TrainingConfig

PURPOSES = ("pretrain", "finetune", "inference")
# bytes of a number, as engines that pack them hold it; int4 has a scale in bf16 for 64 of them, fp8 and int8 one for
# a row of a matrix, which is left out
NUMBER_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 64}


@dataclass
class PlannedDataConfig(DataConfig):
    sequence_length: int = 0  # 0: 4,096, as Llama 2 had (arXiv:2307.09288), or the model's longest, if that is less


@dataclass
class PlannedBatchConfig(BatchConfig):
    sequences: int = 0  # 0: as many as make the tokens that GPT-3 of this size had in a batch (arXiv:2005.14165)
    micro: int = 0  # 0: the largest that fits


@dataclass
class PlannedScheduleConfig(ScheduleConfig):
    steps: int = 0  # 0: those of data.tokens, or, without these, of 20 tokens a parameter (arXiv:2203.15556)


@dataclass
class InferencePlanConfig:
    """Answering with a model: purpose=inference."""

    weights: str = "bf16"  # fp32 | bf16 | fp8 | int8 | int4
    cache: str = "bf16"  # of keys and values, the same choice
    batch: int = 0  # sequences that are answered at a time on one GPU, or group of parallel.tensor; 0: all that fit
    prompt_tokens: int = 1024
    output_tokens: int = 256

    def check(self, maximum_positions: int) -> None:
        for name in ("weights", "cache"):
            require_choice(f"inference.{name}", getattr(self, name), tuple(NUMBER_BYTES))
        require_not_negative("inference.batch", self.batch)
        for name in ("prompt_tokens", "output_tokens"):
            require_positive(f"inference.{name}", getattr(self, name))
        require(
            self.prompt_tokens + self.output_tokens <= maximum_positions,
            "inference.prompt_tokens",
            f"and inference.output_tokens are {self.prompt_tokens + self.output_tokens} tokens, more than "
            f"model.maximum_positions={maximum_positions}",
            "shorten them",
        )


@dataclass
class PlanConfig(PretrainConfig, AdaptationConfig):
    """`python -m framework.plan`: memory, time and money of a run that is not started."""

    keeps_records: ClassVar[bool] = False

    purpose: str = "pretrain"  # pretrain | finetune | inference
    task: TaskConfig = field(default_factory=TaskConfig)  # of finetune; rows are of data.sequence_length
    data: PlannedDataConfig = field(default_factory=PlannedDataConfig)
    batch: PlannedBatchConfig = field(default_factory=PlannedBatchConfig)
    schedule: PlannedScheduleConfig = field(default_factory=PlannedScheduleConfig)
    inference: InferencePlanConfig = field(default_factory=InferencePlanConfig)
    format: str = "table"  # table | json
    output: str = ""  # a file that the JSON is written to as well

    @property
    def predicts_tokens(self) -> bool:
        return self.purpose != "finetune" or self.task.name != "classification"

    def check(self, world_size: int = 1) -> None:
        require(world_size == 1, "torchrun", f"started {world_size} processes", "plan runs as one; set cluster.gpus")
        require_choice("purpose", self.purpose, PURPOSES)
        require_choice("format", self.format, ("table", "json"))
        gpus, node = self.cluster.gpus, self.cluster.gpus_per_node
        require(
            gpus <= node or gpus % node == 0,
            "cluster.gpus",
            f"is {gpus}, which are no whole nodes of {node}",
            f"use {gpus // node * node} or {-(-gpus // node) * node}, or say cluster.gpus_per_node",
        )
        if self.purpose == "inference":
            for part in (self.model, self.cluster):
                part.check()
            self.parallel.check(self.cluster.gpus)
            self.parallel.check_model(self.model)
            self.inference.check(self.model.maximum_positions)
            return
        self.task.check()
        require(
            self.purpose == "finetune" or self.trains_all,
            "purpose",
            "is pretrain, which trains all weights",
            "choose purpose=finetune, or leave adapter and freeze out",
        )
        if self.purpose == "pretrain":
            super().check(self.cluster.gpus)
            return
        TrainingConfig.check(self, self.cluster.gpus)  # objective and lanes are pretraining's
        self.check_steps()
        self.check_adaptation(self)
        self.batch.check(1, self.parallel.data_ranks(self.cluster.gpus))
        self._check_lengths()
