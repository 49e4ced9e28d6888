"""What GPU-hours come to in dollars, in kWh and in CO2.

    kWh = GPU-hours x (watts of a GPU + watts of its host) / 1000 x power usage effectiveness
    kg  = kWh x kg of CO2 equivalent for a kWh

as in Llama 2 (arXiv:2307.09288, section 2.2.1), which leaves the host out. What it took to make the machines is not
in it.
"""

from dataclasses import dataclass

from framework.config import ClusterConfig


@dataclass(frozen=True)
class Cost:
    """None where the cluster's figure is unknown."""

    dollars: float | None
    kwh: float | None
    carbon_kg: float | None


def cost_of(gpu_hours: float, cluster: ClusterConfig) -> Cost:
    """At the cluster's price, power and carbon intensity."""
    dollars = gpu_hours * cluster.price if cluster.price else None
    if not cluster.watts:
        return Cost(dollars, None, None)
    kwh = gpu_hours * (cluster.watts + cluster.host_watts) / 1000 * cluster.power_usage_effectiveness
    return Cost(dollars, kwh, kwh * cluster.carbon_kg_per_kwh)
