"""The machines that a run is planned for, and that its speed is measured against: `configs/cluster/`."""

from dataclasses import dataclass

from framework.checks import require, require_choice, require_not_negative, require_positive


@dataclass
class ClusterConfig:
    """Figures of one GPU (or CPU core), of the nodes they stand in, and what they cost.

    Training takes the ranks that it is started on; `gpus` is for plans alone. Every figure may be replaced by one of
    your own; 0 means unknown where the comment says so, and what would follow from it is left out.
    """

    name: str = "cpu"
    peak_tflops: float = 0.1  # dense peak of one GPU in bf16, or of one CPU core, 1e12 FLOP/s, for MFU
    fp32_tflops: float = 0.0  # the same in fp32, without TF32, which stays off here; 0: peak_tflops
    source: str = ""  # where these figures are from
    bf16: bool = True  # whether that peak is reached in bf16 too; else a plan in bf16 says so
    fp8: bool = False  # whether there are matrix products of it; else a plan in fp8 says so
    device: str = "cpu"  # gpu | cpu: whose kernels compute, which decides what activations and losses need
    gpus: int = 1  # that a plan is for; of a CPU, ranks of one core
    gpus_per_node: int = 8

    memory_gb: float = 0.0  # of one GPU, 1e9 bytes; 0: unknown
    # of it that tensors may take; the rest is for the context, NCCL's buffers and fragmentation: an assumption
    memory_share: float = 0.92
    memory_gb_per_second: float = 0.0  # read by one GPU from its own memory; 0: unknown
    link_gb_per_second: float = 0.0  # from one GPU to the others of its node, one direction; 0: unknown
    network_gb_per_second: float = 0.0  # from one GPU to other nodes, one direction; 0: unknown
    disk_gb_per_second: float = 2.0  # all nodes to where checkpoints lie: one NVMe disk or a modest shared store

    # share of the peak that training reaches. 0.40: Llama 3 405B had 0.38 to 0.43 on 8,192 to 16,384 H100
    # (arXiv:2407.21783, table 4). It stands for one measured on the machine: the `MFU` of a run's summary
    mfu: float = 0.4

    price: float = 0.0  # dollars for a GPU-hour; 0: unknown
    watts: float = 0.0  # of one GPU under load; 0: unknown
    host_watts: float = 0.0  # of all else in the node, for each GPU
    # of the building, a factor on both. 1.56: mean of those that answered Uptime Institute's survey of 2024
    power_usage_effectiveness: float = 1.56
    # kg of CO2 equivalent for a kWh. 0.481: of the world's electricity in 2023 (Ember, Yearly Electricity Data)
    carbon_kg_per_kwh: float = 0.481

    # that one GPU works on average until something stops the job. 50,676: Llama 3 405B was interrupted 419 times
    # unexpectedly in 54 days on 16,384 H100 (arXiv:2407.21783, section 3.3.4)
    gpu_hours_per_failure: float = 50_676.0
    restart_minutes: float = 10.0  # from a failure to the next step: an assumption

    def tflops(self, dtype: str) -> float:
        """Dense peak in this precision, 1e12 FLOP/s; fp8's is bf16's, as only the blocks' products are in it."""
        return self.fp32_tflops if dtype == "fp32" and self.fp32_tflops else self.peak_tflops

    def check(self) -> None:
        require_choice("cluster.device", self.device, ("gpu", "cpu"))
        for name in ("peak_tflops", "gpus", "gpus_per_node", "memory_share", "mfu", "gpu_hours_per_failure"):
            require_positive(f"cluster.{name}", getattr(self, name))
        for name in ("memory_share", "mfu"):
            require(
                getattr(self, name) <= 1, f"cluster.{name}", f"is {getattr(self, name)}", "it is a share, 1 at most"
            )
        require_positive("cluster.disk_gb_per_second", self.disk_gb_per_second)
        for name in (
            *("fp32_tflops", "memory_gb", "memory_gb_per_second", "link_gb_per_second", "network_gb_per_second"),
            *("price", "watts", "host_watts", "carbon_kg_per_kwh", "restart_minutes"),
        ):
            require_not_negative(f"cluster.{name}", getattr(self, name))
        require(
            self.power_usage_effectiveness >= 1,
            "cluster.power_usage_effectiveness",
            f"is {self.power_usage_effectiveness}",
            "it is what a building takes over what its machines take, 1 at least",
        )
