"""Networks that torchvision or a function of the user's makes."""

import difflib
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torchvision import models as torchvision_models

from dprobust.errors import UserError
from dprobust.models.settings import FactoryModel, Shape
from dprobust.models.trial import Contiguous, check_network, first_line, takes_channels_last


class Expand(nn.Module):
    """Grey images (N, 1, H, W) as colour images (N, channels, H, W): each channel is the grey one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, self.channels, -1, -1)

    def extra_repr(self) -> str:
        return str(self.channels)


def layers(settings: FactoryModel, shape: Shape, classes: int, dropout: float = 0.0) -> OrderedDict[str, nn.Module]:
    """The network as one layer, `model`; for torchvision's networks grey images are made colour images before it.

    Args:
        settings: their `name` is ``torchvision:NAME``, a name of `torchvision.models.list_models`, made with random
            weights; or ``module:factory``, called with shape, classes and the `settings`, or with the `settings` alone
            if it does not take the former.
        shape: (C, H, W) of an image.
        classes: number of classes.
        dropout: must be 0; a factory brings its own.

    Raises:
        UserError: a factory that is not found or fails, or whose network does not return logits (N, classes).
    """
    what = f"model {settings.name}"
    if dropout:
        raise UserError(f"{what}: cannot be given dropout; set pretraining.dropout to 0")
    made: OrderedDict[str, nn.Module] = OrderedDict()
    if settings.name.startswith("torchvision:"):
        network = _torchvision(settings.name.partition(":")[2], classes, settings.settings, what)
        if shape[0] == 1:
            made["expand"] = Expand(3)
    else:
        network = _call(_factory(settings.name), shape, classes, settings.settings, what)
    if not isinstance(network, nn.Module):
        raise UserError(f"{what}: the factory returns a {type(network).__name__}, expected a torch.nn.Module")
    made["model"] = network
    whole = nn.Sequential(made).eval()
    check_network(whole, shape, classes, what, trained=False)
    if not takes_channels_last(whole, shape):
        made["model"] = Contiguous(network)
    whole.train()
    return made


def _torchvision(name: str, classes: int, arguments: dict[str, Any], what: str) -> nn.Module:
    known = torchvision_models.list_models(module=torchvision_models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{what}: torchvision has no network {name!r} for classification{hint}")
    try:
        return torchvision_models.get_model(name, weights=None, num_classes=classes, **arguments)
    except Exception as error:
        raise UserError(f"{what}: torchvision cannot make it ({first_line(error)})") from None


def _factory(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise UserError(
            f"model {name}: there is no module {error.name!r}; is its folder on PYTHONPATH or the working directory?"
        ) from None
    except AttributeError:
        raise UserError(f"model {name}: the module {module} has no function {function!r}") from None
    except Exception as error:
        raise UserError(f"model {name}: the module {module} cannot be imported ({first_line(error)})") from None


def _call(factory: Callable[..., Any], shape: Shape, classes: int, arguments: dict[str, Any], what: str) -> Any:
    whole = {"shape": tuple(shape), "classes": classes, **arguments}
    try:
        signature(factory).bind(**whole)
    except (TypeError, ValueError):
        whole = arguments
    try:
        return factory(**whole)
    except Exception as error:
        raise UserError(f"{what}: the factory fails ({first_line(error)})") from None
