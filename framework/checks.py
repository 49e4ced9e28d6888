"""What a field must be, said with its name, the problem and the remedy."""

import math

from framework.errors import UserError


def require(condition: bool, field_name: str, problem: str, remedy: str) -> None:
    """Raise `UserError` naming the field, the problem and the remedy unless `condition` holds."""
    if not condition:
        raise UserError(f"{field_name}: {problem}; {remedy}")


def require_choice(field_name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `UserError` unless `value` is one of the choices."""
    require(value in choices, field_name, f"unknown value {value!r}", f"choose {' | '.join(choices)}")


def require_positive(field_name: str, value: float) -> None:
    """Raise `UserError` unless `value` is finite and greater than 0."""
    require(0 < value < math.inf, field_name, f"is {value}", "it must be a number greater than 0")


def require_not_negative(field_name: str, value: float) -> None:
    """Raise `UserError` unless `value` is finite and at least 0."""
    require(0 <= value < math.inf, field_name, f"is {value}", "it must not be negative")


def divisors(number: int) -> str:
    """The divisors of a number up to 128, for a message."""
    return ", ".join(str(d) for d in range(1, min(number, 129)) if number % d == 0)
