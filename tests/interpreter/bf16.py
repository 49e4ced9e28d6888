"""bfloat16 for Triton's interpreter, which keeps it as bit patterns and adds and multiplies those as integers."""

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

SHIFTS = ("left_shift", "right_shift")  # of bit patterns, when the interpreter itself converts


def widen(bits: np.ndarray) -> np.ndarray:
    """fp32 of the same value."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """Bits of the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    to_even = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    return np.where(np.isnan(values), np.uint16(0x7FC0), ((bits + to_even) >> 16).astype(np.uint16))


def install() -> None:
    """Let products and all operations on two tensors compute in fp32 and round once."""
    create_dot, binary_op = InterpreterBuilder.create_dot, InterpreterBuilder.binary_op

    def dot(self, a, b, *rest):
        a, b = (TensorHandle(widen(x.data), tl.float32) if is_bf16(x) else x for x in (a, b))
        return create_dot(self, a, b, *rest)

    def operation(self, left, right, op):
        if not is_bf16(left) or op.__name__ in SHIFTS:
            return binary_op(self, left, right, op)
        result = op(widen(left.data), widen(right.data))
        if result.dtype == bool:
            return TensorHandle(result, tl.int1)
        return TensorHandle(narrow(result), tl.bfloat16)

    InterpreterBuilder.create_dot, InterpreterBuilder.binary_op = dot, operation


def is_bf16(handle: TensorHandle) -> bool:
    return handle.dtype.scalar == tl.bfloat16
