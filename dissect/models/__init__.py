"""Networks by name or file: architecture, weights, preprocessing, layers. The only door to torchvision and timm.

model = models.load("torchvision:resnet18", "my.pth", keep=("layer4",))
model.module, model.preprocessing, model.weights_sha256, model.notes
"""

from dissect.models.layers import LayerInfo, layers, resolve_layer
from dissect.models.loading import Model, load
from dissect.models.preprocessing import Preprocessing

__all__ = ["LayerInfo", "Model", "Preprocessing", "layers", "load", "resolve_layer"]
