"""`dissect maximize`: the picture that a class, a unit or a direction answers most."""

import argparse

from dissect.cli import inversion_options as options

DESCRIPTION = """\
Synthesise maximum impulses of classes, units or random directions, and judge them against real photos.

  dissect maximize squeezenet1_1 --weights W.pth --range imagenet --class 1,130 --images DIR
  dissect maximize resnet18 --weights W.pth --range imagenet --layer layer4 --unit 3,17 --where centre
  dissect maximize demo --layer conv3 --directions 8

With --images each picture must beat the best real one under fresh jitter; --second shows it to another network.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "maximize",
        help="synthesise what a class, unit or direction wants",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_network(parser)
    parser.add_argument("--class", dest="classes", type=options.numbers, metavar="N,…", help="class numbers")
    parser.add_argument("--layer", metavar="L", help="layer of the units or directions")
    parser.add_argument("--unit", type=options.numbers, metavar="N,…", help="units of the layer")
    parser.add_argument("--directions", type=int, metavar="K", help="K random directions of the layer instead of units")
    parser.add_argument(
        "--where", choices=("mean", "centre", "max"), default="mean", help="place on the map (default mean)"
    )
    parser.add_argument(
        "--recipe", default="fourier", help="fourier (default), inceptionism, simonyan, yosinski, natural, pattern"
    )
    parser.add_argument("--variant", type=int, default=2, help="which of Yosinski's four settings, 0 to 3 (default 2)")
    parser.add_argument("--decay", type=float, default=0.05, help="lambda of simonyan (default 0.05)")
    parser.add_argument("--restarts", type=int, default=1, metavar="R", help="pictures of each target (default 1)")
    parser.add_argument("--shorter", type=float, default=1.0, metavar="X", help="divide the recipe's steps by X")
    parser.add_argument("--images", action="append", metavar="PATH", help="real photos to beat; may repeat")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N photos only")
    parser.add_argument("--second", metavar="MODEL,…", help="MODEL,weights=FILE,range=NAME: does it see the class too?")
    options.add_output(parser, "maximize")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    import hashlib
    from dataclasses import asdict

    from dissect.errors import SpecError
    from dissect.inversion import maximize
    from dissect.inversion.sheet import contact_sheet

    net = options.network(args)
    if args.classes:
        target = maximize.classes(net, args.classes)
    elif args.layer and args.unit:
        target = maximize.units(net, args.layer, args.unit, args.where)
    elif args.layer and args.directions:
        target = maximize.random_directions(net, args.layer, args.directions, args.seed, args.where)
    else:
        raise SpecError("no target given: add --class N, or --layer L with --unit N or --directions K")
    recipe = maximize.Recipe(args.recipe, args.restarts, args.decay, args.variant, args.shorter, args.seed)
    real, peaks = None, None
    identity: list[object] = [net.identity]
    if args.images:
        _, real = options.photos(net, args.images, args.limit)
        peaks = maximize.answers(net, real, target).amax(0)
        identity.append(hashlib.sha256(net.pixels.to_uint8(real).tobytes()).hexdigest())
    second = options.others(args, [args.second])[0] if args.second else None
    if second is not None and not args.classes:
        raise SpecError("--second judges classes: it needs --class")
    results = options.Results.at(args, "maximize", [identity, target.layer, target.names, target.where, repr(recipe)])
    outcome = maximize.maximize(
        net,
        target,
        recipe,
        peaks,
        results.folder / "state.npz",
        identity,
        options.watcher(net, results.folder, args.recipe),
    )
    judged = maximize.judge(net, outcome.images, target, real, second, args.classes or [])
    pictures = net.pixels.to_uint8(outcome.images)
    rows = []
    numbers = args.classes or args.unit
    results.parts = outcome.parts
    for i, name in enumerate(target.names):
        row = list(pictures[i * args.restarts : (i + 1) * args.restarts])
        for r, picture in enumerate(row):
            at = i * args.restarts + r
            results.picture(
                "maximum-impulse", f"{name.replace('/', '_').replace(' ', '-')}-{r}.png", picture, layer=target.layer,
                unit=numbers[i] if numbers else None, target=name, restart=r, loss=outcome.total[-1, at],
                measures={key: value for key, value in asdict(judged[i]).items() if key != "name"}
                | {"stopped": outcome.stopped[at]},
            )  # fmt: skip
        rows.append(row)
    results.picture(
        "maximum-sheet",
        "sheet.png",
        contact_sheet(rows, names=[name.removeprefix(f"{target.layer} ") for name in target.names], side=160),
    )
    results.facts |= {
        "recipe": args.recipe,
        "layer": target.layer,
        "where": target.where,
        "seed": args.seed,
        "targets": [asdict(one) for one in judged],
        "stopped": outcome.stopped,
        "seconds": outcome.seconds,
    }
    results.finish(args, net.weights_sha256)
    return 0
