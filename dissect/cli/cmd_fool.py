"""`dissect fool`: pictures of nothing that a network is sure about."""

import argparse

from dissect.cli import inversion_options as options

DESCRIPTION = """\
High-confidence fooling patterns (Nguyen et al. 2015): evolved (MAP-Elites, every class a cell) or by gradient.

  dissect fool squeezenet1_1 --weights W.pth --range imagenet --encoding cppn --generations 200
  dissect fool … --gradient --class 1,130
  dissect fool --retrain --encoding cppn           does training on them help? (built-in digits, a small network)

An archive that was stopped resumes to the same bits; more --generations continue it.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "fool",
        help="breed high-confidence fooling patterns",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_network(parser)
    for action in parser._actions:
        if action.dest == "model":
            action.nargs, action.default = "?", None  # --retrain brings its own
    parser.add_argument("--encoding", default="cppn", help="cppn (default) or direct")
    parser.add_argument(
        "--raw-coordinates", action="store_true", help="feed the patterns pixel numbers, as the authors did"
    )
    parser.add_argument(
        "--first", type=int, default=200, metavar="N", help="random pictures to begin with (default 200)"
    )
    parser.add_argument("--offspring", type=int, default=200, metavar="N", help="children a generation (default 200)")
    parser.add_argument("--generations", type=int, default=100, metavar="N", help="generations in all (default 100)")
    parser.add_argument("--random", action="store_true", help="random search with as many evaluations, to compare")
    parser.add_argument("--gradient", action="store_true", help="gradient ascent instead of evolution")
    parser.add_argument("--class", dest="classes", type=options.numbers, metavar="N,…", help="classes of --gradient")
    parser.add_argument("--steps", type=int, default=200, help="steps of --gradient (default 200)")
    parser.add_argument("--retrain", action="store_true", help="retrain with a fooling class, on built-in digits")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of --retrain (default 3)")
    options.add_output(parser, "fool")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError

    if args.retrain:
        return _retrain(args)
    if args.model is None:
        raise SpecError("no MODEL given: name a network, or add --retrain for the built-in digits")
    return _gradient(args) if args.gradient else _evolve(args)


def _evolve(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    import numpy as np

    from dissect.inversion import elites, fooling
    from dissect.inversion.sheet import contact_sheet, curves
    from dissect.progress import Progress
    from dissect.store.syntheses import CellRecord

    net = options.network(args)
    code = fooling.encoding(args.encoding, net, args.raw_coordinates)
    plan = elites.Plan(args.first, args.offspring, args.generations, not args.random, args.seed)
    results = options.Results.at(
        args, "fool", [net.identity, repr(code), args.seed, args.first, args.offspring, args.random]
    )
    progress = Progress("evolving", args.generations, 0, "generations")

    def watch(archive: "elites.Archive[object]") -> None:
        progress.advance(archive.generation - progress.done)

    archive = elites.evolve(net, code, plan, None, results.folder / "archive.npz", net.identity, watch=watch)
    progress.close()
    best = np.argsort(-archive.fitness, kind="stable")
    shown = best[:64]
    drawn = (code.draw([archive.genomes[i] for i in shown]) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for cell, picture in zip(shown.tolist(), drawn):
        results.picture(
            "fooling", f"class-{cell:04d}.png", picture, layer="output", unit=cell, target=f"class {cell}",
            loss=-float(np.log(archive.fitness[cell])),
            measures={"confidence": archive.fitness[cell], "generation": archive.born[cell]},
        )  # fmt: skip
    results.cells = [
        CellRecord(cell, float(archive.fitness[cell]), int(archive.born[cell]), elites.stored(code, genome))
        for cell, genome in enumerate(archive.genomes)
    ]
    results.parts = {"encoding": repr(code), "plan": asdict(plan), "optimiser": "MAP-Elites" if plan.breed else "none"}
    rows = [list(drawn[i : i + 8]) for i in range(0, len(drawn), 8)]
    results.picture("fooling-sheet", "sheet.png", contact_sheet(rows, side=112))
    every = max(1, len(archive.history) // 40)
    points = archive.history[::every]
    series = {"median confidence": [m for _, m, _ in points], "mean confidence": [a for _, _, a in points]}
    results.text(
        "fooling-curve",
        "confidence.svg",
        curves(series, [f"{e}" for e, _, _ in points], "Archive by evaluations", "confidence"),
    )
    results.facts |= {
        "encoding": args.encoding,
        "random_search": args.random,
        "evaluations": archive.evaluations,
        "generations": archive.generation,
        "median_confidence": np.median(archive.fitness),
        "mean_confidence": archive.fitness.mean(),
        "over_99": (archive.fitness > 0.99).mean(),
        "classes": len(archive.fitness),
        "best": [{"class": c, "confidence": archive.fitness[c], "generation": archive.born[c]} for c in shown.tolist()],
    }
    results.finish(args, net.weights_sha256)
    return 0


def _gradient(args: argparse.Namespace) -> int:
    from dissect.inversion import adversarial, fooling
    from dissect.inversion.sheet import contact_sheet

    net = options.network(args)
    classes = args.classes or list(range(min(16, net.classes)))
    results = options.Results.at(args, "fool-gradient", [net.identity, classes, args.steps, args.seed])
    outcome = fooling.by_gradient(
        net, classes, args.steps, seed=args.seed, state_file=results.folder / "state.npz", identity=net.identity,
        watch=options.watcher(net, results.folder, "gradient"),
    )  # fmt: skip
    stored = net.pixels.quantise(outcome.images)
    confidence = net.codes(stored, "output").softmax(1)[range(len(classes)), classes]
    drawn = list(net.pixels.to_uint8(outcome.images))
    results.parts = outcome.parts
    for at, (number, picture) in enumerate(zip(classes, drawn)):
        results.picture(
            "fooling", f"class-{number:04d}.png", picture, layer="output", unit=number, target=f"class {number}",
            loss=outcome.total[-1, at],
            measures={"confidence": float(confidence[at]), "stopped": outcome.stopped[at]},
        )  # fmt: skip
    rows = [drawn[i : i + 8] for i in range(0, len(drawn), 8)]
    results.picture("fooling-sheet", "sheet.png", contact_sheet(rows, side=112))
    seen = adversarial.predictions(net, stored).tolist()
    results.facts |= {
        "route": "gradient",
        "classes": classes,
        "confidence": confidence,
        "median_confidence": confidence.median(),
        "fooled": sum(map(int.__eq__, seen, classes)) / len(classes),
    }
    results.finish(args, net.weights_sha256)
    return 0


def _retrain(args: argparse.Namespace) -> int:
    import sys
    from dataclasses import asdict

    from dissect.inversion import elites, fooling
    from dissect.inversion.sheet import contact_sheet

    plan = elites.Plan(args.first, args.offspring, args.generations, True, args.seed)
    results = options.Results.at(args, "fool-retrain", [args.encoding, repr(plan), args.rounds])

    def tell(done: fooling.Round) -> None:
        line = f"round {done.number}: median confidence {done.median_confidence:.4f}, accuracy {done.test_accuracy:.3f}"
        print(line, file=sys.stderr)

    results.facts["model"] = "small network on built-in digits"
    rounds, pictures = fooling.retraining(
        fooling.digits(2000, args.seed), fooling.digits(1000, args.seed + 1), fooling.DIGIT_PIXELS, args.encoding, plan,
        args.rounds,
        tell=tell,
    )  # fmt: skip
    names = [f"round {r.number}" for r in rounds]
    results.picture("fooling-sheet", "sheet.png", contact_sheet([list(p) for p in pictures], names=names, side=64))
    results.parts = {"encoding": args.encoding, "plan": asdict(plan), "rounds": args.rounds}
    results.facts |= {"encoding": args.encoding, "rounds": [asdict(r) for r in rounds]}
    results.finish(args)
    return 0
