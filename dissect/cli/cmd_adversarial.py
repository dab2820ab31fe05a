"""`dissect adversarial`: smallest perturbations, baselines, transfer, and universal illusions."""

import argparse

from dissect.cli import inversion_options as options

DESCRIPTION = """\
The smallest change of a photo that makes the network see another class (Szegedy et al. 2014), with baselines.

  dissect adversarial squeezenet1_1 --weights W.pth --range imagenet --image DIR --limit 8
  dissect adversarial … --target 130 --transfer mobilenet_v2,weights=M.pth,range=half

Universal illusions (Elsayed et al. 2018): two groups of classes; photos are pushed from one towards the other.

  dissect adversarial … --illusion cat=281-285 dog=151-268 --image DIR --with mobilenet_v2,weights=M.pth,range=half \\
      --held-out resnet18,weights=R.pth,range=imagenet
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "adversarial",
        help="smallest perturbations that change the answer; illusions",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_network(parser)
    parser.add_argument("--image", action="append", required=True, metavar="PATH", help="photo or folder; may repeat")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N photos only")
    parser.add_argument(
        "--target", type=int, metavar="CLASS", help="class to be seen (default: each photo's runner-up)"
    )
    parser.add_argument("--iterations", type=int, default=100, help="of each L-BFGS run (default 100)")
    parser.add_argument(
        "--width", type=float, default=0.02, help="relative width to which c is bisected (default 0.02)"
    )
    parser.add_argument("--no-polish", action="store_true", help="the paper's search alone")
    parser.add_argument(
        "--transfer", action="append", default=[], metavar="MODEL,…", help="another network to try them on"
    )
    parser.add_argument(
        "--illusion", nargs=2, metavar="NAME=CLASSES", help="two groups of classes, as cat=281-285 dog=151-268"
    )
    parser.add_argument(
        "--with", dest="ensemble", action="append", default=[], metavar="MODEL,…", help="more networks of the ensemble"
    )
    parser.add_argument("--held-out", action="append", default=[], metavar="MODEL,…", help="networks that only judge")
    parser.add_argument(
        "--reach", type=float, default=32.0, metavar="BYTES", help="largest change of an illusion (default 32)"
    )
    parser.add_argument("--steps", type=int, default=40, help="steps of an illusion (default 40)")
    parser.add_argument("--fovea", type=float, default=0.15, help="sharp radius of the eye, in sides (default 0.15)")
    parser.add_argument(
        "--slope", type=float, default=0.02, help="blur per pixel of eccentricity (default 0.02; 0: no eye)"
    )
    options.add_output(parser, "adversarial")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    return _illusion(args) if args.illusion else _minimal(args)


def _minimal(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    import numpy as np
    import torch

    from dissect.inversion import adversarial
    from dissect.inversion.sheet import contact_sheet

    net = options.network(args)
    names, photos = options.photos(net, args.image, args.limit)
    seen = adversarial.predictions(net, photos)
    targets = adversarial.runners_up(net, photos)
    if args.target is not None:
        targets = torch.full_like(targets, net.check_class(args.target))
        kept = (seen != targets).nonzero()[:, 0].tolist()
        photos, targets, names = photos[kept], targets[kept], [names[i] for i in kept]
    search = adversarial.Search(width=args.width, iterations=args.iterations, polish=0 if args.no_polish else 20)
    results = options.Results.at(args, "adversarial", [net.identity, names, targets.tolist(), repr(search)])
    attack = adversarial.minimal(net, photos, targets, search)
    quantised = adversarial.quantised_success(net, attack.images, attack.targets)
    stored = adversarial.quantised_norm(net, attack, [1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0])
    made = net.pixels.to_uint8(adversarial.to_z(net, attack.images))
    originals = net.pixels.to_uint8(photos)
    rows = []
    for i, name in enumerate(names):
        change = made[i].astype(np.float64) - originals[i]
        shown = np.clip(np.rint(128 + change * (127 / max(1.0, float(np.abs(change).max())))), 0, 255).astype(np.uint8)
        rows.append([originals[i], shown, made[i]])
        target = int(attack.targets[i])
        results.picture(
            "adversarial", f"{i:03d}-{name.rsplit('.', 1)[0]}.png", made[i], layer="output", unit=target,
            target=f"class {target}", image=name,
            measures={"norm": attack.norm[i], "distortion": attack.distortion[i], "c": attack.c[i],
                      "success": attack.success[i], "quantised_success": quantised[i]},
        )  # fmt: skip
    titles = ["original", "change, stretched", "adversarial"]
    results.picture(
        "adversarial-sheet", "sheet.png", contact_sheet(rows[:40], titles, [n.rsplit(".", 1)[0] for n in names])
    )
    results.parts = {"objective": "c |r| + cross-entropy", "image": "box 0..1", "search": asdict(search)}
    baselines = {}
    for reach in (1.0, 2.0, 4.0, 8.0):
        for title, steps in (("fgsm", 1), ("pgd", 20)):
            changed = adversarial.sign_attack(net, photos, attack.labels, reach, steps, targeted=False)
            fooled = adversarial.predictions(net, net.pixels.quantise(changed)) != attack.labels
            baselines[f"{title}_{reach:g}"] = float(fooled.double().mean())
    networks = [net, *options.others(args, args.transfer)]
    results.facts |= {
        "images": [
            {
                "image": name,
                "label": int(attack.labels[i]),
                "target": int(attack.targets[i]),
                "success": attack.success[i],
                "norm": attack.norm[i],
                "paper_norm": attack.paper_norm[i],
                "distortion": attack.distortion[i],
                "c": attack.c[i],
                "solves": attack.solves[i],
                "evaluations": attack.evaluations[i],
                "quantised_success": quantised[i],
                "quantised_norm": stored[i],
            }
            for i, name in enumerate(names)
        ],
        "mean_distortion": np.nanmean(attack.distortion) if attack.success.any() else None,
        "success": attack.success.mean(),
        "quantised_success": quantised.mean(),
        "fooled_by_sign_attack": baselines,
        "transfer": {n.name: share for n, share in zip(networks, adversarial.transfer(networks, [attack])[0])},
    }
    results.finish(args, net.weights_sha256)
    return 0


def _group(text: str) -> tuple[str, tuple[int, ...]]:
    from dissect.errors import SpecError

    name, _, classes = text.partition("=")
    if not name or not classes:
        raise SpecError(f"--illusion {text!r}: expected NAME=CLASSES, such as cat=281-285")
    try:
        return name, tuple(options.numbers(classes))
    except argparse.ArgumentTypeError as error:
        raise SpecError(f"--illusion {text!r}: {error}") from None


def _illusion(args: argparse.Namespace) -> int:
    import numpy as np

    from dissect.errors import SpecError
    from dissect.inversion import illusions
    from dissect.inversion.retina import Retina
    from dissect.inversion.sheet import contact_sheet

    net = options.network(args)
    choice = illusions.Choice(*_group(args.illusion[0]), *_group(args.illusion[1]))
    ensemble = [net, *options.others(args, args.ensemble)]
    judges = options.others(args, args.held_out)
    names, photos = options.photos(net, args.image, args.limit)
    retina = Retina(args.fovea * net.size[0], args.slope) if args.slope else None
    plan = illusions.Plan(args.reach, args.steps, retina, seed=args.seed)
    seen = net.codes(photos, "output").argmax(1).tolist()
    groups = [next((g for g in (0, 1) if label in choice.classes(g)), None) for label in seen]
    truths = [i for i, g in enumerate(groups) if g is not None]
    strangers = [i for i, g in enumerate(groups) if g is None]
    if not truths:
        raise SpecError(f"none of the {len(names)} photos is seen as {choice.first} or {choice.second}: give others")
    results = options.Results.at(args, "illusion", [net.identity, names, repr(choice), repr(plan), args.ensemble])
    towards = [1 - groups[i] for i in truths]  # type: ignore[operator]
    own = photos[truths]
    watch = options.watcher(net, results.folder, "illusion")
    changed = illusions.illude(ensemble, own, towards, choice, plan, results.folder / "adv.npz", net.identity, watch)
    conditions = {
        "image": (own, towards),
        "adv": (changed, towards),
        "flip": (illusions.flipped(own, changed, net), towards),
    }
    origin = {"image": truths, "adv": truths, "flip": truths}
    if strangers:
        either = [k % 2 for k in range(len(strangers))]
        false = illusions.illude(
            ensemble, photos[strangers], either, choice, plan, results.folder / "false.npz", net.identity, watch
        )
        conditions["false"], origin["false"] = (false, either), strangers
    results.parts = {"plan": repr(plan), "choice": repr(choice), "ensemble": [one.name for one in ensemble]}
    stimuli, columns = [], []
    for condition, (pictures, targets) in conditions.items():
        drawn = net.pixels.to_uint8(pictures)
        columns.append(list(drawn[:8]))
        for row, (picture, target) in enumerate(zip(drawn, targets)):
            source = origin[condition][row]
            group = groups[source]
            truth = "neither" if group is None else choice.name(group)
            stimuli.append(illusions.Stimulus(picture, condition, names[source], truth, choice.name(target)))
    for name, sha256 in illusions.export(results.folder / "stimuli", stimuli, choice, args.seed).items():
        results.note("illusion-stimulus", f"stimuli/{name}", sha256)
    height = max(map(len, columns))
    rows: list[list[np.ndarray | None]] = [[c[i] if i < len(c) else None for c in columns] for i in range(height)]
    results.picture("illusion-sheet", "sheet.png", contact_sheet(rows, list(conditions), side=160))
    results.facts |= {
        "choice": [choice.first, choice.second],
        "conditions": {name: len(targets) for name, (_, targets) in conditions.items()},
        "answered_target": {
            "made_on": illusions.judge(ensemble, conditions, choice, net),
            "held_out": illusions.judge(judges, conditions, choice, net),
        },
        "page": str(results.folder / "stimuli" / "page" / "index.html"),
    }
    results.finish(args, net.weights_sha256)
    return 0
