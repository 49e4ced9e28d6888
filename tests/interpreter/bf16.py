"""bfloat16 for Triton's interpreter, which adds its bit patterns as integers and rounds by cutting them."""

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
    """Let products and all operations on two tensors compute in fp32, and round to the nearest, as a GPU does."""
    create_dot, binary_op, cast_impl = (
        InterpreterBuilder.create_dot,
        InterpreterBuilder.binary_op,
        InterpreterBuilder.cast_impl,
    )

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

    def cast(self, source, dtype):
        if is_bf16(source) and dtype.scalar == tl.float32:
            return TensorHandle(widen(source.data), tl.float32)
        if source.dtype.scalar == tl.float32 and dtype.scalar == tl.bfloat16:
            return TensorHandle(narrow(source.data), tl.bfloat16)
        return cast_impl(self, source, dtype)

    InterpreterBuilder.create_dot = dot
    InterpreterBuilder.binary_op = operation
    InterpreterBuilder.cast_impl = cast


def is_bf16(handle: TensorHandle) -> bool:
    return handle.dtype.scalar == tl.bfloat16
