"""Arithmetic of float32: as its name says, on every device."""

import torch


def full_float32() -> dict[str, bool | str]:
    """Have float32 products and convolutions computed in float32, and by the same algorithm each time.

    PyTorch lets cuDNN round the factors of a convolution to TF32 (10 bits of mantissa) unless it is told not to: a
    "float32 cross-entropy" would then be something else on a GPU of 2020 or later than on a CPU.

    Returns:
        The policy as read back, for the provenance of what is computed under it.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    # By the older of PyTorch's two interfaces: after the newer one, its own `cudnn.flags` raises.
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    cudnn.deterministic, cudnn.benchmark = True, False
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "matmul_tf32": matmul.allow_tf32,
        "cudnn_tf32": cudnn.allow_tf32,
        "cudnn_deterministic": cudnn.deterministic,
        "cudnn_benchmark": cudnn.benchmark,
    }
