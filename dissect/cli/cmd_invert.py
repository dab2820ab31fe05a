"""`dissect invert`: which picture has this code?"""

import argparse

from dissect.cli import inversion_options as options

DESCRIPTION = """\
Invert the codes of photos at one layer, several, or every layer of a network (Mahendran & Vedaldi 2015, 2016).

  dissect invert squeezenet1_1 --weights W.pth --range imagenet --image cat.jpg --layer features.12
  dissect invert resnet18 --weights W.pth --range imagenet --image DIR --limit 4 --layers blocks --restarts 4

Writes a sheet of reconstructions by depth, the error curves in both published conventions, and every picture.
The same command again resumes where it stopped.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "invert",
        help="reconstruct images from their codes",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_network(parser)
    parser.add_argument("--image", action="append", required=True, metavar="PATH", help="photo or folder; may repeat")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N photos only")
    parser.add_argument("--layer", action="append", metavar="L", help="layer to invert; repeat for several")
    parser.add_argument("--layers", choices=("blocks", "all"), help="every block, or every single layer, by depth")
    parser.add_argument(
        "--setting", default="ijcv16", help="ijcv16 (default), cvpr15, or spectrum: slower and far closer"
    )
    parser.add_argument("--weight", type=float, default=100.0, metavar="C", help="C of ijcv16: 1, 20, 100 or 300")
    parser.add_argument(
        "--variation", type=float, metavar="L", help="lambda of TV of cvpr15 (default 1, 10, 100 by depth)"
    )
    parser.add_argument(
        "--restarts", type=int, default=1, metavar="R", help="reconstructions of each photo (default 1)"
    )
    parser.add_argument(
        "--part", default="all", help="all, centre (5 x 5 places), first-half or second-half of the units"
    )
    parser.add_argument("--caricature", action="store_true", help="start at the photo and exaggerate its code")
    parser.add_argument("--typical", default="published", help="published (default) or measured: B and V of the photos")
    parser.add_argument("--settle", type=int, default=50, metavar="N", help="steps without jitter (published: 50)")
    parser.add_argument("--shorter", type=float, default=1.0, metavar="X", help="divide the published steps by X")
    options.add_output(parser, "invert")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    import hashlib

    from dissect.errors import SpecError
    from dissect.inversion import depth, invert
    from dissect.inversion.sheet import contact_sheet, curves

    net = options.network(args)
    names, photos = options.photos(net, args.image, args.limit)
    recipe = invert.Recipe(
        args.setting, args.weight, args.variation, args.restarts, args.part, args.caricature, args.typical,
        args.settle, args.shorter, args.seed,
    )  # fmt: skip
    layers = list(args.layer or [])
    if args.layers:
        layers += depth.blocks(net) if args.layers == "blocks" else depth.leaves(net)
    if not layers:
        raise SpecError("no layer given: add --layer NAME, or --layers blocks for all of them")
    layers = list(dict.fromkeys(layers))
    for layer in layers:
        net.shape(layer)
    originals = net.pixels.to_uint8(photos)
    identity = [net.identity, hashlib.sha256(originals.tobytes()).hexdigest(), repr(recipe)]
    results = options.Results.at(args, "invert", [identity, layers])
    columns, rows = ["original"], [[image] for image in originals]
    restarts_rows, summaries = [], []
    for layer in layers:
        safe = layer.replace("/", "_")
        found = invert.invert(
            net, photos, layer, recipe, results.folder / "state" / f"{safe}.npz", identity,
            options.watcher(net, results.folder, layer),
        )  # fmt: skip
        summaries.append(found.summary() | {"sse_per_image": found.squared_error.mean(1)})
        columns.append(layer)
        best = found.feature_error.argmin(1)
        for i, row in enumerate(rows):
            pictures = net.pixels.to_uint8(found.images[i])
            row.append(pictures[best[i]])
            for r, picture in enumerate(pictures):
                at = i * args.restarts + r
                results.picture(
                    "inversion", f"{safe}/{i:03d}-{r}.png", picture, layer=layer, image=names[i], restart=r,
                    loss=found.energy[-1, at],
                    measures={"feature_error": found.feature_error[i, r], "image_error": found.image_error[i, r],
                              "stopped": found.stopped[at]},
                )  # fmt: skip
        results.parts[layer] = found.parts
        restarts_rows.append(list(net.pixels.to_uint8(found.images[0])))
    results.picture("inversion-sheet", "sheet.png", contact_sheet(rows, columns, [n.rsplit(".", 1)[0] for n in names]))
    if args.restarts > 1:
        titles = [f"restart {r}" for r in range(args.restarts)]
        results.picture("restart-sheet", "restarts.png", contact_sheet(restarts_rows, titles, layers))
    image_errors = [float(s["image_error"]) for s in summaries]
    series = {"image error": image_errors, "feature error": [float(s["feature_error"]) for s in summaries]}
    if args.restarts > 1:
        series["restart spread"] = [float(s["restart_spread"]) for s in summaries]
    results.text(
        "inversion-curves", "errors.svg", curves(series, layers, f"Inversion of {net.name}", "ratio of norms (IJCV'16)")
    )
    results.facts |= {
        "images": names,
        "setting": args.setting,
        "restarts": args.restarts,
        "seed": args.seed,
        "layers": summaries,
        "depth_rank_correlation": depth.rank_correlation(image_errors) if len(layers) > 1 else None,
    }
    results.finish(args, net.weights_sha256)
    return 0
