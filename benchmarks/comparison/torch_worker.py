"""Holds a PyTorch network: the reference implementation or timm's, eager or compiled, in float32 or bfloat16."""

# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch
import torch._inductor
from torch import nn
from torch.nn import functional

from benchmarks.comparison.case import LEARNING_RATE, WEIGHT_DECAY, product_side
from benchmarks.comparison.protocol import Job, serve
from benchmarks.comparison.torch_model import ConvNeXt


class TorchSystem:
    """A network in channels-last layout, with the fused AdamW.

    The options are ``timm``, whether the network is timm's; ``compile``, a mode of `torch.compile`, or None for eager
    mode; and ``dtype``, float32, or bfloat16 by autocast.
    """

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.case.threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            # TensorFloat-32 for float32, which is XLA's default.
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self.timm, self.dtype = job.options["timm"], getattr(torch, job.options["dtype"])
        self.model = timm_model(job) if self.timm else ConvNeXt(job.case)
        load(self.model, job.weights("timm" if self.timm else "facebookresearch"))
        self.model = self.model.to(self.device, memory_format=torch.channels_last)
        images = torch.from_numpy(job.array("images")).permute(0, 3, 1, 2)  # [B,3,H,W]
        self.images = images.to(self.device, memory_format=torch.channels_last)
        self.labels = torch.from_numpy(job.array("labels")).to(self.device, torch.int64)
        kernels = [parameter for parameter in self.model.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.model.parameters() if parameter.ndim == 1]
        groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
        self._predict, self._mean_loss = self._logits, self._loss
        if (mode := job.options["compile"]) is not None:
            # Freezing packs the weights once, before the forward passes are measured.
            freeze = torch._inductor.list_mode_options(mode) | {"freezing": True}
            self._predict = torch.compile(self._logits, options=freeze)
            self._mean_loss = torch.compile(self._loss, mode=mode)
        self._matrix = torch.ones((product_side(self.device.type),) * 2, dtype=self.dtype, device=self.device)

    def _logits(self) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.model(self.images)

    def _loss(self) -> torch.Tensor:
        return functional.cross_entropy(self._logits().float(), self.labels)

    def describe(self) -> dict[str, Any]:
        """See `benchmarks.comparison.protocol.System`."""
        versions = {"torch": str(torch.__version__)}
        if self.timm:
            import timm

            versions["timm"] = timm.__version__
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "versions": versions,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "product_flops": 2 * self._matrix.shape[0] ** 3,
        }

    def logits(self) -> np.ndarray:
        """See `benchmarks.comparison.protocol.System`."""
        with torch.inference_mode():
            return self._predict().float().cpu().numpy()

    def forward(self, count: int) -> None:
        """See `benchmarks.comparison.protocol.System`."""
        with torch.inference_mode():
            for _ in range(count):
                self._predict()
        self._finish()

    def step(self, count: int) -> float:
        """See `benchmarks.comparison.protocol.System`."""
        loss = torch.tensor(torch.nan)
        for _ in range(count):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._mean_loss()
            loss.backward()
            self.optimizer.step()
        self._finish()
        return loss.item()

    def product(self, count: int) -> None:
        """See `benchmarks.comparison.protocol.System`."""
        for _ in range(count):
            torch.mm(self._matrix, self._matrix)
        self._finish()

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def timm_model(job: Job) -> nn.Module:
    """Returns timm's network of the same name, with the stem of the case."""
    import timm

    model = timm.create_model(job.case.model, num_classes=job.case.num_classes)
    model.stem[0] = nn.Conv2d(3, job.case.dims[0], *job.case.window)
    return model


def load(model: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Loads all weights into a network, by its own names. Its linear layers may be 1x1 convolutions."""
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(array).reshape(shapes[name]) for name, array in weights.items()})


if __name__ == "__main__":
    serve(TorchSystem)
