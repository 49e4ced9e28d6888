"""Plans as people read them."""

from framework.config import PlanConfig, TrainingConfig
from framework.page.wording import duration, number, percent, size
from framework.planning.duration import YEAR, Duration
from framework.planning.inference import InferencePlan, tensor_that_fits
from framework.planning.memory import PARTS
from framework.planning.plan import TrainingPlan, Verdict

Rows = list[tuple[str, str, str]]  # what, how much, and how it is known


def brief(plan: TrainingPlan, config: TrainingConfig) -> list[str]:
    """A few lines before the first step."""
    work, time, saved = plan.work, plan.duration, plan.checkpoints
    peak = config.cluster.tflops(config.precision.dtype)
    parts = ", ".join(f"{part} {size(held)}" for part, held in plan.memory.parts.items() if held)
    lines = [
        f"plan: {count(work.parameters)} parameters, {count(plan.trained)} of them trained, on {count(work.tokens)} "
        f"tokens in {number(work.steps)} steps: {work.flops:.3g} operations",
        f"  memory of a rank {size(plan.memory.total)} ({parts}) in the {plan.memory.moment}",
        f"  {_verdict_words(plan, config)}",
        f"  {number(round(time.tokens_per_second))} tokens/s at {percent(time.mfu)} of {number(plan.processors)} x "
        f"{peak:g} TFLOP/s (cluster.mfu={config.cluster.mfu:g}): {duration(time.seconds)}",
        f"  checkpoint {size(saved.bytes)}; with a failure every {saved.hours_between_failures:,.0f} hours the best "
        f"checkpoint.every is {number(saved.interval_steps)}, and it is {number(config.checkpoint.every)}",
    ]
    if plan.cost.dollars is not None or plan.cost.kwh is not None:
        lines.insert(4, "  " + _money(plan))
    return lines


def count(value: float) -> str:
    """A large number to three digits, in words' first letters: 8.03 B."""
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:g}"


def training_rows(plan: TrainingPlan, config: TrainingConfig) -> Rows:
    """The run as it is configured, line by line."""
    work, time, cluster, saved = plan.work, plan.duration, config.cluster, plan.checkpoints
    rough, rough_cost = plan.by_parameters
    pretrains = plan.purpose == "pretrain"
    rows = [
        ("parameters", f"{number(work.parameters)}", f"{number(plan.trained)} of them trained"),
        (
            "tokens",
            count(work.tokens),
            f"{number(work.steps)} steps"
            + (f"; compute-optimal are {count(work.compute_optimal_tokens)}, 20 a parameter" if pretrains else ""),
        ),
        (
            "operations",
            f"{work.flops:.3g}",
            f"matrix products and attention; 6 x parameters x tokens are {work.flops_by_parameters:.3g}",
        ),
        ("verdict", _verdict_word(plan.verdict), _verdict_words(plan, config)),
        *_precision(config),
        (
            "network",
            "unknown" if plan.network.seconds is None else f"{duration(plan.network.seconds)} a step",
            f"sent by a rank: gradients {size(plan.network.gradient_bytes)}, "
            f"weights {size(plan.network.weight_bytes)}, activations {size(plan.network.activation_bytes)}",
        ),
        (
            "speed",
            f"{number(round(time.tokens_per_second))} tokens/s",
            f"{duration(time.step_seconds)} a step, at {percent(time.mfu)} of {number(plan.processors)} x "
            f"{cluster.tflops(config.precision.dtype):g} TFLOP/s" + _slower(plan),
        ),
        ("time", duration(time.seconds), gpu_time(time) + f"; by 6 x parameters x tokens {gpu_time(rough)}"),
    ]
    if plan.cost.dollars is not None:
        about = f"at {cluster.price:g} a GPU-hour; by 6 x parameters x tokens {_brief(rough_cost.dollars or 0.0)}"
        rows.append(("dollars", _brief(plan.cost.dollars), about))
    rows += energy_rows(plan.cost.kwh, plan.cost.carbon_kg, config)
    rows += [
        (
            "checkpoint",
            size(saved.bytes),
            f"{duration(saved.write_seconds)} to write; {size(saved.disk_bytes)} on the disk",
        ),
        (
            "checkpoint.every",
            number(saved.interval_steps),
            f"{duration(saved.interval_seconds)}, best with a failure every {saved.hours_between_failures:,.0f} hours "
            f"(Young 1974), of which {saved.failures:,.1f} are to be expected; {percent(saved.lost_share)} of the time "
            "is lost to both",
        ),
    ]
    return rows


def _remedy(plan: InferencePlan, config: PlanConfig) -> str:
    """What would fit instead."""
    if plan.fits is not False:
        return ""
    if plan.largest_batch:
        return f"use inference.batch={plan.largest_batch}"
    tensor = tensor_that_fits(config)
    smaller = "fewer bytes (inference.weights, inference.cache)"
    return f"parallel.tensor={tensor} does, or {smaller}" if tensor else f"use {smaller}, or a larger GPU"


def inference_rows(plan: InferencePlan, config: PlanConfig) -> Rows:
    """The same for answering."""
    speed = "unknown; set cluster.memory_gb_per_second"
    rows = [
        ("parameters", number(plan.parameters), f"{plan.replicas} x in memory"),
        ("weights", size(plan.weight_bytes), "on each GPU"),
        (
            "keys and values",
            f"{size(plan.cache_bytes_per_token)} a token",
            f"{size(plan.cache_bytes_per_sequence)} for a prompt and its answer",
        ),
        (
            "memory",
            size(plan.bytes),
            f"for {plan.batch} at a time"
            + ("" if plan.limit is None else f"; {size(plan.limit)} there are, for {plan.largest_batch} at most"),
        ),
        ("verdict", {True: "fits", False: "does not fit", None: "unknown"}[plan.fits], _remedy(plan, config)),
    ]
    if plan.fits is False:
        return rows
    rows += [
        ("prompt", duration(plan.prefill_seconds), f"to read one, at cluster.mfu={config.cluster.mfu:g}"),
    ]
    if plan.step_seconds is not None:
        speed = f"{plan.tokens_per_second:,.0f} tokens/s"
        about = f"for one sequence, {plan.total_tokens_per_second:,.0f} for all; {plan.bound_by} is the bound"
        rows += [("answer", speed, about), ("answers", f"{plan.answers_per_second:,.2f} a second", "prompts included")]
    else:
        rows.append(("answer", speed, ""))
    if plan.cost is not None and plan.cost.dollars is not None:
        rows.append(("dollars", f"{plan.cost.dollars:,.2f}", "for a million tokens written, prompts included"))
    if plan.cost is not None:
        rows += energy_rows(plan.cost.kwh, plan.cost.carbon_kg, config)
    return rows


def _slower(plan: TrainingPlan) -> str:
    """Why the utilisation is not the cluster's."""
    if plan.duration.waits_for_network:
        return ": the network is slower"
    again = plan.work.recomputed_flops / plan.work.flops
    return f", {percent(again)} more for what is computed twice" if again else ""


def _precision(config: TrainingConfig) -> Rows:
    """A warning where the cluster cannot do it, or the peak is of another one."""
    if config.precision.dtype == "fp8":
        told = "timed at the peak of bf16; what fp8 gains is not in it"
        return [("precision", "fp8", told if config.cluster.fp8 else f"{config.cluster.name} has none: use bf16")]
    if config.cluster.bf16 or config.precision.dtype == "fp32":
        return []
    told = (
        f"{config.cluster.name} has none: its peak, and so the times, are those of fp16, in which Loam does not train"
    )
    return [("precision", config.precision.dtype, told)]


def energy_rows(kwh: float | None, carbon_kg: float | None, config: TrainingConfig) -> Rows:
    """Where the cluster's power is known."""
    if kwh is None or carbon_kg is None:
        return []
    cluster = config.cluster
    return [
        (
            "kWh",
            _brief(kwh),
            f"{cluster.watts:g} + {cluster.host_watts:g} W a GPU, "
            f"x {cluster.power_usage_effectiveness:g} for the building",
        ),
        ("kg CO2", _brief(carbon_kg), f"{cluster.carbon_kg_per_kwh:g} a kWh"),
    ]


def gpu_time(time: Duration) -> str:
    """GPU-hours, or GPU-years where they are many."""
    years = time.gpu_hours * 3600 / YEAR
    return f"{years:,.0f} GPU-years" if years >= 100 else f"{_brief(time.gpu_hours)} GPU-hours"


def _brief(value: float) -> str:
    """A number in at least three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show_training(plan: TrainingPlan, config: TrainingConfig, command: str) -> None:
    """Print tables to the console."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    console.print(_listed(f"Plan: {plan.purpose} on {plan.ranks} x {config.cluster.name}", training_rows(plan, config)))
    if not console.is_terminal:
        console.width = max(console.width, 110)  # a file takes all columns side by side
    console.print(_choices(plan, config))
    if plan.memory.host:
        console.print(f"Offloaded: {size(plan.memory.host)} on the host for each rank.", highlight=False)
    if plan.verdict.fits is not False and (config.cluster.fp8 or config.precision.dtype != "fp8"):
        console.print(f"To start it:\n  {command}", highlight=False, markup=False, soft_wrap=True)


def _choices(plan: TrainingPlan, config: TrainingConfig) -> object:
    """A column for each ZeRO stage with each policy for activations, the one that is set in bold."""
    from rich import box
    from rich.table import Table

    unit, factor = ("GB", 1e9) if max(choice.memory.total for choice in plan.choices) >= 1e9 else ("MB", 1e6)
    title = (
        f"Memory of a rank in {unit} at batch.micro={plan.verdict.micro}, in the moment when most is held, by zero= and"
    )
    table = Table(
        title=f"{title}\nmemory.activation_checkpointing=", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    table.add_column()
    for choice in plan.choices:
        chosen = (choice.stage, choice.policy) == (config.zero.stage, config.memory.activation_checkpointing)
        header = f"stage{choice.stage}\n{choice.policy}"
        table.add_column(header, justify="right", style="bold" if chosen else None, no_wrap=True)
    for part in PARTS:
        table.add_row(part, *(f"{choice.memory.parts[part] / factor:,.2f}" for choice in plan.choices))
    table.add_row("total", *(f"{choice.memory.total / factor:,.2f}" for choice in plan.choices), end_section=True)
    verdicts = [choice.verdict for choice in plan.choices]
    table.add_row("fits", *({True: "yes", False: "no", None: "?"}[verdict.fits] for verdict in verdicts))
    most = ("?" if verdict.largest_micro is None else str(verdict.largest_micro) for verdict in verdicts)
    table.add_row("largest\nbatch.micro", *(f"\n{number}" for number in most))
    seconds = (choice.network_seconds for choice in plan.choices)
    table.add_row("network", *("?" if time is None else f"{_brief(time)} s" for time in seconds))
    table.add_row("step", *(f"{_brief(choice.step_seconds)} s" for choice in plan.choices))
    return table


def show_inference(plan: InferencePlan, config: PlanConfig) -> None:
    """Print a table to the console."""
    from rich.console import Console

    title = f"Plan: inference on {config.cluster.gpus} x {config.cluster.name}"
    Console(soft_wrap=True).print(_listed(title, inference_rows(plan, config)))


def _listed(title: str, rows: Rows) -> object:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify)
    for row in rows:
        table.add_row(*row)
    return table


def _verdict_word(verdict: Verdict) -> str:
    return {True: "fits", False: "does not fit", None: "unknown"}[verdict.fits]


def _verdict_words(plan: TrainingPlan, config: TrainingConfig) -> str:
    verdict = plan.verdict
    needed = f"{size(verdict.bytes)} at batch.micro={verdict.micro}"
    if verdict.limit is None:
        return f"needs {needed}; set cluster.memory_gb to know whether that fits"
    there = f"needs {needed}, tensors may take {size(verdict.limit)}"
    if verdict.fits:
        return f"fits: {there}; the largest batch.micro is {verdict.largest_micro}"
    if verdict.largest_micro:
        return f"does not fit: {there}; use batch.micro={verdict.largest_micro}"
    fitting = [choice for choice in plan.choices if choice.verdict.largest_micro]
    if not fitting:
        return f"does not fit: {there}; no choice of zero and memory does: {_smaller(config)}"
    best = min(fitting, key=lambda choice: choice.step_seconds)
    micro = min(verdict.micro, best.verdict.largest_micro or 0)
    remedy = f"zero=stage{best.stage} memory.activation_checkpointing={best.policy} batch.micro={micro}"
    return f"does not fit: {there}; {remedy} does"


def _smaller(config: TrainingConfig) -> str:
    """What makes the share of a GPU smaller where nothing else does."""
    return (
        f"share layers (parallel.tensor={2 * config.parallel.tensor}), offload (zero.offload=cpu), or take more GPUs "
        "with zero=stage3"
    )


def _money(plan: TrainingPlan) -> str:
    found = [] if plan.cost.dollars is None else [f"{_brief(plan.cost.dollars)} dollars"]
    if plan.cost.kwh is not None:
        found += [f"{_brief(plan.cost.kwh)} kWh", f"{_brief(plan.cost.carbon_kg or 0.0)} kg CO2"]
    return f"{gpu_time(plan.duration)}: " + ", ".join(found)
