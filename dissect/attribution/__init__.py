"""Where did the decision come from? Attribution with exact rules, audited, judged and tied to the dissection.

network = Network(module, mean, std)
x = network.prepare(images)                                  # uint8 [N, h, w, 3]
attribute(network, x, class_target(281), METHODS["guided"])  # .map [N, h, w], .audit
occlude(network, x, unit_target("layer4", 33), patch=16, stride=8)
contributions(network, x, class_target(281), "layer4")       # which units carried it
"""

from dissect.attribution.cam import grad_cam, guided_grad_cam
from dissect.attribution.carriers import (
    Carrier,
    Contributions,
    UnitLabel,
    carriers,
    concept_sums,
    contributions,
    unit_labels,
)
from dissect.attribution.gradients import METHODS, Attribution, Method, attribute, integrated_gradients, smoothgrad
from dissect.attribution.network import Network
from dissect.attribution.occlusion.occlude import occlude, occlude_approximately
from dissect.attribution.occlusion.sensitivity import occluder_sensitivity
from dissect.attribution.rise import rise
from dissect.attribution.targets import (
    Target,
    class_target,
    classes_target,
    concept_target,
    direction_target,
    unit_target,
)

__all__ = [
    "METHODS",
    "Attribution",
    "Carrier",
    "Contributions",
    "Method",
    "Network",
    "Target",
    "UnitLabel",
    "attribute",
    "carriers",
    "class_target",
    "classes_target",
    "concept_sums",
    "concept_target",
    "contributions",
    "direction_target",
    "grad_cam",
    "guided_grad_cam",
    "integrated_gradients",
    "occlude",
    "occlude_approximately",
    "occluder_sensitivity",
    "rise",
    "smoothgrad",
    "unit_labels",
    "unit_target",
]
