"""Compile every kernel for one kind of GPU: Triton needs none for that."""

TYPES = {
    **dict.fromkeys(("addresses", "sizes", "firsts", "ends", "sums", "others", "rows", "ours", "theirs", "counts"), "*i64"),
    "tensor_of": "*i32", "start": "i32", "table": "*fp32", "squares": "*fp64",
}  # fmt: skip


def compile_all():
    """Return the number of kernels, all of them compiled."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from gradparity.parity.on_gpu import kernels
    from gradparity.parity.on_gpu.mixing import Numbers

    block = {"LANES": kernels.LANES, "ROUNDS": kernels.ROUNDS}
    wanted = [
        *((kernels.sum_blocks, {"NUMBERS": int(numbers), **block}) for numbers in Numbers),
        (kernels.sum_tensors, {"LANES": kernels.LANES}),
        *((kernels.count_blocks, {"WIDTH": width, **block}) for width in (1, 2, 4, 8)),
    ]
    for kernel, constants in wanted:
        signature = {name: TYPES.get(name, "constexpr") for name in kernel.arg_names}
        compile(ASTSource(fn=kernel, signature=signature, constexprs=constants), target=GPUTarget("cuda", 90, 32))
    return len(wanted)


if __name__ == "__main__":
    print(compile_all(), "kernels")
