"""Per-example gradient clipping, the heart of DP-SGD (Abadi et al. 2016; Algorithm 1 of the paper).

For a batch of N examples with gradients g_i of a loss, the cross-entropy if no other is given, every engine computes

    sum_i g_i / max(1, ||g_i||_2 / C)    and    ||g_1||_2, ..., ||g_N||_2,

with the norm taken over all trainable parameters together. The engines agree up to round-off and differ in
speed; but `bfloat16` clips and sums nearby gradients g_i, under the same bound. An engine,
`engine = ENGINES["fused"](model)`, is called at every step, `engine(x, y, clip)`, with the arguments and results of
`clipped_gradient_sum`. It leaves the model as it was: no hooks, no `.grad`, no new attributes, no other values in
buffers.

The bound holds with round-off, for every model that is accepted: what an example adds has norm at most
C (1 + 1e-6). An example whose gradient is not finite adds nothing; its norm is returned as it is. What remains of
floating-point arithmetic: the sum over the examples is rounded, and the gradient of an example is computed in a batch,
whose size may turn a last bit of it. On a GPU the bound needs `dprobust.precision.full_float32`: TF32 rounds to 1e-3.
"""

import copy
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dprobust import fused, probing, rounded
from dprobust.clipping import CLIP_FUNCTIONS, SLACK, Result, clip_explicit, coefficients
from dprobust.errors import UserError
from dprobust.gradients import CONV_WEIGHT_GRADIENTS, each
from dprobust.objectives import Loss, check_targets, cross_entropy, losses

# Elements of per-example gradients that the functional engine holds at a time.
FUNCTIONAL_CHUNK = 2**24

_WARNED: weakref.WeakSet[nn.Module] = weakref.WeakSet()

Parameters = Mapping[str, nn.Parameter]


def clipped_gradient_sum(
    model: nn.Module, x: Tensor, y: Tensor, clip: float, clip_function: str = "abadi", loss: Loss = cross_entropy
) -> Result:
    """Sum of the per-example gradients of a loss (cross-entropy by default), each clipped to l2 norm `clip`.

    Args:
        model: any module that maps x to logits (N, classes), or what the loss takes, each row a function of its own
            example alone. Its trainable parameters are all in float32 or all in float64.
        x: inputs (N, ...); N may be 0.
        y: classes, int64 (N,), or the targets that the loss takes, a row an example.
        clip: the largest norm C > 0 that the gradient of one example keeps.
        clip_function: `abadi`, the factors 1 / max(1, norm / C), or `automatic`, C / (norm + 0.01) (AUTO-S of
            Bu et al. 2022): then every gradient gets a norm just below C, and none counts for more than another.
        loss: outputs of the model and y -> losses (N,), each of its own row alone (`dprobust.objectives.Loss`).

    Returns:
        The clipped sum for every parameter that requires a gradient, by its name in
        `model.named_parameters()`, in tensors that the caller may change; and the norms (N,) before clipping.
        Only the first call with a model, and with a mode of it, waits for the device.

    Raises:
        ValueError: bad arguments; parameters in another precision, or autocast; or a model without per-example
            gradients: batch normalisation in training mode, or anything else that mixes the examples of a batch.
    """
    return FusedEngine(model, clip_function, loss)(x, y, clip)


class Engine(ABC):
    """Clipped gradient sums of one model, by one of the `CLIP_FUNCTIONS`."""

    def __init__(self, model: nn.Module, clip_function: str = "abadi", loss: Loss = cross_entropy):
        if clip_function not in CLIP_FUNCTIONS:
            raise ValueError(f"clip_function must be one of {', '.join(CLIP_FUNCTIONS)}, got {clip_function!r}")
        self.model, self.clip_function, self.loss = model, clip_function, loss
        self._loss_checked = loss is cross_entropy

    def __call__(self, x: Tensor, y: Tensor, clip: float) -> Result:
        parameters = _check(self.model, x, y, clip, self.loss)
        if len(x) == 0:
            sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
            return sums, next(iter(sums.values())).new_zeros(0)
        x = x.detach()
        if not self._loss_checked and len(x) > 1:
            probing.check_loss(self.model, self.loss, x, y)
            self._loss_checked = True
        with probing.unchanged(self.model, probing.changed_buffers(self.model, x)):
            return self._clipped_sum(parameters, x, y, clip)

    @abstractmethod
    def _clipped_sum(self, parameters: Parameters, x: Tensor, y: Tensor, clip: float) -> Result: ...


def _check(model: nn.Module, x: Tensor, y: Tensor, clip: float, loss: Loss) -> dict[str, nn.Parameter]:
    """Trainable parameters of the model; ValueError if the arguments cannot be."""
    if not clip > 0:
        raise ValueError(f"clip must be positive, got {clip}")
    check_targets(loss, y, len(x))
    for path, module in model.named_modules():
        name = f"{path or 'the model'} ({type(module).__name__})"
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise ValueError(f"{name} normalises by statistics of the batch: use GroupNorm")
        if isinstance(module, _InstanceNorm) and module.training and module.running_mean is not None:
            raise ValueError(f"{name} tracks statistics of the batches: use GroupNorm")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")
    first = next(iter(parameters.values())).dtype
    for name, p in parameters.items():
        if p.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} is in {p.dtype}, too coarse for a bound on norms: call model.float()")
        if p.dtype != first:
            raise ValueError(f"{name} is in {p.dtype}, other parameters in {first}: call model.float()")
    if torch.is_autocast_enabled(x.device.type):
        raise ValueError("autocast is on, too coarse for a bound on norms: call the engine outside of it")
    return parameters


class FusedEngine(Engine):
    """One forward and one backward pass (see `dprobust.fused`): nearly as fast as a plain gradient.

    A model that its rules do not cover goes to `FunctionalEngine`, with one warning that names the layer.
    """

    def _clipped_sum(self, parameters: Parameters, x: Tensor, y: Tensor, clip: float) -> Result:
        try:
            return fused.clipped_sum(self.model, parameters, x, y, clip, self.clip_function, self.loss)
        except fused.Unsupported as reason:
            if self.model not in _WARNED:
                warnings.warn(f"clipping falls back to torch.func, which is slow: {reason}", stacklevel=3)
                _WARNED.add(self.model)
        return FunctionalEngine(self.model, self.clip_function, self.loss)._clipped_sum(parameters, x, y, clip)


class Bfloat16Engine(Engine):
    """In bfloat16 (see `dprobust.rounded`): the sum of other, nearby gradients, clipped as exactly; sooner.

    A model that its rules do not cover, or that is not in float32, is refused with a UserError of one line: no other
    engine takes over, which would give other numbers.
    """

    def _clipped_sum(self, parameters: Parameters, x: Tensor, y: Tensor, clip: float) -> Result:
        try:
            return rounded.clipped_sum(self.model, parameters, x, y, clip, self.clip_function, self.loss)
        except fused.Unsupported as reason:
            raise UserError(f"engine: bfloat16 cannot clip this model: {reason}; use fused") from None


class FunctionalEngine(Engine):
    """The gradient of every example on its own, by torch.func: right for any module, and slow."""

    def _clipped_sum(self, parameters: Parameters, x: Tensor, y: Tensor, clip: float) -> Result:
        values = {name: p.detach() for name, p in parameters.items()}
        size = max(1, FUNCTIONAL_CHUNK // max(1, sum(p.numel() for p in values.values())))
        sums, norms = {name: torch.zeros_like(p) for name, p in values.items()}, []
        for xs, ys in zip(x.split(size), y.split(size), strict=True):
            chunk = clip_explicit(self._per_example(values, xs, ys), clip, self.clip_function)
            for name, partial in chunk[0].items():
                sums[name] += partial
            norms.append(chunk[1])
        return sums, torch.cat(norms)

    def _per_example(self, values: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        gradient = torch.func.grad(self._loss)
        try:
            return torch.func.vmap(gradient, in_dims=(None, 0, 0), randomness="different")(values, x, y)
        except RuntimeError as error:
            if probing.out_of_memory(error):
                raise
            # torch.func cannot batch every operation (recurrent layers, for example).
            each = [gradient(values, *example) for example in zip(x, y, strict=True)]
            return {name: torch.stack([g[name] for g in each]) for name in values}

    def _loss(self, values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        # A pass may write into its buffers, but not into those from outside of the gradient.
        state = values | {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        outputs = torch.func.functional_call(self.model, state, (x.unsqueeze(0),))
        return losses(self.loss, probing.check_outputs(outputs, 1), y.unsqueeze(0)).sum()


class _OpacusEngine(Engine):
    """Opacus on a twin of the model: the model itself stays clean.

    A model for which Opacus would be wrong is refused with a ValueError that names the reason.
    """

    # In what the twin computes; None: in what the model does, on the same memory.
    dtype: torch.dtype | None = None

    def _clipped_sum(self, parameters: Parameters, x: Tensor, y: Tensor, clip: float) -> Result:
        twin = self._twin(parameters, x)
        with torch.enable_grad(), warnings.catch_warnings():
            # The input of the first layer needs no gradient, which is as it should be.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            sums, norms = self._opacus_sum(twin, x.to(self._type(x)), y, clip)
        found = {name: sums.get(name, torch.zeros_like(p)).to(p.dtype) for name, p in parameters.items()}
        return found, norms.to(next(iter(parameters.values())).dtype)

    def _type(self, tensor: Tensor) -> torch.dtype:
        return self.dtype if self.dtype and tensor.is_floating_point() else tensor.dtype

    @abstractmethod
    def _opacus_sum(self, twin: nn.Module, x: Tensor, y: Tensor, clip: float) -> Result: ...

    def _twin(self, parameters: Parameters, x: Tensor) -> nn.Module:
        try:
            layers = fused.supported_layers(self.model)
            fused.probe(self.model, layers, parameters, x)
        except fused.Unsupported as reason:
            raise ValueError(f"Opacus cannot clip this model: {reason}") from None
        for layer, name in layers.items():
            if (flaw := _opacus_flaw(layer)) is not None:
                raise ValueError(f"Opacus cannot clip this model: it {flaw} of {name}")

        shared: dict[int, Tensor] = {
            id(p): nn.Parameter(p.detach().to(self._type(p)), p.requires_grad) for p in self.model.parameters()
        }
        shared |= {id(buffer): buffer.to(self._type(buffer)) for buffer in self.model.buffers()}
        twin = copy.deepcopy(self.model, shared)
        for original, module in zip(self.model.modules(), twin.modules(), strict=True):
            # Opacus records layers in training mode only, and these layers compute the same in either mode.
            module.training = original.training or original in layers
            if getattr(module, "inplace", False):
                module.inplace = False
            if type(module) in CONV_WEIGHT_GRADIENTS:
                for setting in ("stride", "padding", "dilation"):
                    if not isinstance(value := getattr(module, setting), str):
                        setattr(module, setting, each(value, module.weight.dim() - 2))
            if original in layers:
                # Opacus unfolds images by strides that hold for contiguous ones.
                module.register_forward_pre_hook(lambda _, inputs: tuple(a.contiguous() for a in inputs))
        return twin

    def _losses(self, wrapped: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return losses(self.loss, probing.check_outputs(wrapped(x), len(x)), y)

    @staticmethod
    def _collect(twin: nn.Module, attribute: str) -> dict[str, Tensor]:
        found = {}
        for name, parameter in twin.named_parameters():
            if parameter.grad is not None:
                found[name] = getattr(parameter, attribute, None)
                if found[name] is None:
                    raise ValueError(f"Opacus cannot clip this model: it finds no gradient of {name}")
        return found


def _opacus_flaw(layer: nn.Module) -> str | None:
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return "ignores the padding mode"
    if getattr(layer, "padding_idx", None) is not None:
        return "ignores the padding index"
    if isinstance(layer, nn.LayerNorm) and layer.bias is None:
        return "fails without the bias"
    return None


class HooksEngine(_OpacusEngine):
    """Opacus `GradSampleModule`: all per-example gradients in memory."""

    def _opacus_sum(self, twin: nn.Module, x: Tensor, y: Tensor, clip: float) -> Result:
        from opacus.grad_sample import GradSampleModule

        self._losses(GradSampleModule(twin, loss_reduction="sum"), x, y).sum().backward()
        return clip_explicit(self._collect(twin, "grad_sample"), clip, self.clip_function)


class GhostEngine(_OpacusEngine):
    """Opacus `GradSampleModuleFastGradientClipping`: a backward pass for the norms, one for the weighted sum.

    The weights are those of Algorithm 1; Opacus' own, C / (norm + 1e-6), fall short of them. The sum is of a second
    pass's gradients, which round-off may make longer than those of the first: so they are measured as well, and
    shortened until the bound holds. Both passes are in float64, and with explicit gradients instead of ghost norms,
    which cancel, if a layer sees several positions of an example. Linear layers and embeddings that are used more
    than once are refused.
    """

    dtype = torch.float64

    def _clipped_sum(self, parameters: Parameters, x: Tensor, y: Tensor, clip: float) -> Result:
        sums, norms = super()._clipped_sum(parameters, x, y, clip)
        finite = norms.isfinite()
        if finite.all():
            return sums, norms
        if not finite.any():
            return {name: torch.zeros_like(p) for name, p in parameters.items()}, norms
        # In a backward pass a factor of 0 does not remove nan and infinity.
        return self._clipped_sum(parameters, x[finite], y[finite], clip)[0], norms

    def _opacus_sum(self, twin: nn.Module, x: Tensor, y: Tensor, clip: float) -> Result:
        from opacus.grad_sample import GradSampleModuleFastGradientClipping

        wrapped = GradSampleModuleFastGradientClipping(twin, loss_reduction="sum")
        try:
            losses = self._losses(wrapped, x, y)
        except NotImplementedError as reason:
            raise ValueError(f"Opacus cannot clip this model: {reason}") from None
        layers = [m for m in twin.modules() if isinstance(m, nn.Linear | nn.Embedding) and hasattr(m, "activations")]
        # Without the last dimension of the input of a linear layer, which holds features.
        positions = [a[0].shape[1 : a[0].dim() - isinstance(m, nn.Linear)] for m in layers for a in m.activations]
        wrapped.use_ghost_clipping = all(shape.numel() <= 1 for shape in positions)
        recorded = [(m, list(m.activations)) for m in twin.modules() if hasattr(m, "activations")]
        counts = {p: p._forward_counter for p in twin.parameters() if p.requires_grad}

        def backward(losses: Tensor) -> Tensor:
            """Norms of what is added to the gradients of the parameters, which start from zero."""
            for module, activations in recorded:
                module.activations = list(activations)
            for parameter, count in counts.items():
                parameter._forward_counter = count
            twin.zero_grad()
            losses.sum().backward(retain_graph=True)
            parts = self._collect(twin, "_norm_sample")
            return torch.linalg.vector_norm(torch.stack(list(parts.values())), dim=0)

        norms = backward(losses)
        factors, margin = coefficients(norms, clip, self.clip_function), SLACK
        while ((added := backward(factors * losses)) > clip * (1 + SLACK)).any():
            # Round-off of this pass differs again from that of the next.
            factors = torch.where(added > clip, factors * clip / added * (1 - margin), factors)
            margin = 2 * margin
        return {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}, norms


ENGINES: dict[str, type[Engine]] = {
    "fused": FusedEngine,
    "bfloat16": Bfloat16Engine,
    "ghost": GhostEngine,
    "hooks": HooksEngine,
    "functional": FunctionalEngine,
}
