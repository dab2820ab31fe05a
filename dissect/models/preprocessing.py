"""Mean and standard deviation of a network's input, on the 0..1 scale, RGB."""

from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """x = (pixel / 255 - mean) / std; `origin` says where the numbers come from."""

    mean: Triple
    std: Triple
    origin: str

    def override(self, mean: Triple | None, std: Triple | None) -> "Preprocessing":
        """The same with numbers that the user gave."""
        given = " and ".join(name for name, value in (("mean", mean), ("std", std)) if value is not None)
        if not given:
            return self
        return Preprocessing(mean or self.mean, std or self.std, f"{given} given; otherwise {self.origin}")


IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet's, as nothing else is known")
INSIDE = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "none, as the network normalises its input itself")
